"""Seeds of initial weights, rows and dropout: each decides its own part and no other."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from strawberry.data import open_dataset
from strawberry.errors import RecipeError
from strawberry.model.build import build
from strawberry.recipe.spec import Recipe
from strawberry.runs.folder import RunFolder
from strawberry.training import train
from strawberry.training.batches import Batches
from tests.training.conftest import RecipeMaker

PARTS = ("init", "data", "dropout")


def weights(recipe: Recipe) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in build(recipe).parameters())


def rows(recipe: Recipe) -> bytes:
    batches = Batches(open_dataset(recipe), recipe, torch.device("cpu"))
    return b"".join(batches.train(step)[0][0].numpy().tobytes() for step in range(3))


def losses(recipe: Recipe, folder: Path) -> list[float]:
    train(recipe, folder)
    return [row["loss"] for row in RunFolder(folder).metrics() if "loss" in row]


@pytest.mark.parametrize("varied", PARTS)
def test_a_seed_decides_its_own_part(varied: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """With another seed of one part, weights and rows differ if they are it, bit for bit."""
    one, other = make_recipe(), make_recipe(train={f"{varied}_seed": 8})

    assert (weights(one) != weights(other)) == (varied == "init")
    assert (rows(one) != rows(other)) == (varied == "data")
    assert losses(one, tmp_path / "one") != losses(other, tmp_path / "other")


def test_nothing_drops_out_where_dropout_is_0(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Without dropout its seed changes no loss, so it enters nothing else."""
    still = {"dropout": 0.0}
    one, other = make_recipe(model=still), make_recipe(model=still, train={"dropout_seed": 8})

    assert losses(one, tmp_path / "one") == losses(other, tmp_path / "other")


def test_all_three_are_the_recipe_s_seed(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Held at 7 beside another seed, they train what a recipe with seed 7 trains."""
    held = make_recipe(seed=99, train=dict.fromkeys([f"{part}_seed" for part in PARTS], 7))

    assert losses(held, tmp_path / "held") == losses(make_recipe(), tmp_path / "plain")


def test_a_resumed_run_keeps_its_seeds(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """With three seeds of their own, 4 steps and 4 more are the 8 of a run that never stopped."""
    seeds = {"init_seed": 3, "data_seed": 4, "dropout_seed": 5, "lr_decay_iters": 8}
    whole = make_recipe(train=seeds)
    train(make_recipe(train={**seeds, "max_iters": 4}), tmp_path / "parts")
    train(whole, tmp_path / "parts", resume=True)

    parts = [row["loss"] for row in RunFolder(tmp_path / "parts").metrics() if "loss" in row]
    assert parts == losses(whole, tmp_path / "whole")


def test_a_fork_reads_by_its_own_seed(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Its weights and generators are the parent's, so that no other seed of its own counts."""
    train(make_recipe(train={"max_iters": 4, "lr_decay_iters": 8}), tmp_path / "parent")
    numbers = itertools.count()

    def forked(**seeds: int) -> list[float]:
        folder = tmp_path / f"fork-{next(numbers)}"
        recipe = make_recipe(train={"lr_decay_iters": 8, **seeds})
        train(recipe, folder, fork_of=tmp_path / "parent")
        return [row["loss"] for row in RunFolder(folder).metrics() if "loss" in row]

    assert forked() == forked(init_seed=8, dropout_seed=8)
    assert forked()[:4] == forked(data_seed=8)[:4]
    assert forked()[4:] != forked(data_seed=8)[4:]


def test_a_seed_below_0_is_refused(make_recipe: RecipeMaker) -> None:
    """The refusal names the field."""
    with pytest.raises(RecipeError, match="data_seed"):
        make_recipe(train={"data_seed": -1})
