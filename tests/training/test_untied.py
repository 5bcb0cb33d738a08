"""A head that is freed late in a run: equal to the table before, exact on resume."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import strawberry
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.runs.curricula import Curricula
from strawberry.training import train
from tests.faults.test_resume import interrupted
from tests.training.conftest import corpus, recipe_file
from tests.training.test_loop import rows, same_weights

__all__ = ["corpus", "recipe_file"]
FILE = Path(__file__).parents[1] / "ideas" / "untied.py"


@pytest.mark.slow
def test_the_head_is_the_table_and_then_its_own(
    recipe_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before it is freed, and resumed, a run ends with the bits of one that never was."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    sections = dict(runpy.run_path(str(FILE))["RECIPE"])
    short = {"max_iters": 4, "eval_interval": 0, "eval_iters": 1}
    plugins = Plugins.load(files=[FILE], disabled=["all"])
    recipe = load_recipe(recipe_file("late", train=short, **sections), ["curriculum[0].share=0.5"],
                         plugins=plugins)  # fmt: skip
    train(recipe, tmp_path / "whole")
    interrupted(recipe, tmp_path / "stopped", 1)
    tied, freed = (strawberry.generation.load_run(tmp_path / name, plugins=plugins).model
                   for name in ("stopped", "whole"))  # fmt: skip
    assert tied.head_weight is tied.embedding.weight
    assert torch.equal(tied.embedding.head, tied.embedding.weight)
    assert freed.head_weight is freed.embedding.head
    assert not torch.equal(freed.embedding.head, freed.embedding.weight)
    train(recipe, tmp_path / "stopped", resume=True)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    assert same_weights(tmp_path / "stopped", tmp_path / "whole")


def test_while_it_is_tied_it_is_the_tied_model(recipe_file: Any) -> None:
    """The loss and the gradient are those of the built-in table with a tied head."""
    plugins = Plugins.load(files=[FILE], disabled=["all"])
    sections = dict(runpy.run_path(str(FILE))["RECIPE"])
    recipe = load_recipe(recipe_file("late", model={"dropout": 0.0, **sections.pop("model")},
                                     **sections), plugins=plugins)  # fmt: skip
    plain = strawberry.build(load_recipe(recipe_file("plain", model={"dropout": 0.0})))
    model = strawberry.build(recipe)
    Curricula(recipe).put(model, 0)
    model.load_state_dict({"embedding.head": plain.embedding.weight, **plain.state_dict()})
    ids = torch.arange(12).view(2, 6)
    for each in (plain, model):
        each.loss(ids, ids.flip(1)).total.backward()
    torch.testing.assert_close(model.embedding.weight.grad, plain.embedding.weight.grad)
    assert model.loss(ids, ids).total == plain.loss(ids, ids).total
