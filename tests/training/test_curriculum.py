"""Curricula: the rows, lengths, nodes and parameters of each step, counted and resumed exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strawberry.cli.app import run
from strawberry.contracts import RunSite, Settings
from strawberry.data import open_dataset
from strawberry.errors import RecipeError
from strawberry.generation.load import load_run
from strawberry.model.accounting import account
from strawberry.model.build import build
from strawberry.runs.curricula import Curricula
from strawberry.training import Interrupted, train
from strawberry.training.batches import Batches
from strawberry.training.planned import planned
from tests.training.conftest import STACK, RecipeMaker
from tests.training.test_loop import StopAt, rows, same_weights

ALL = [
    {"use": "batch_warmup", "start": 1, "steps": 4, "stages": 3},
    {"use": "length_warmup", "start": 4, "steps": 3, "stages": 2, "multiple": 4},
    {"use": "growing_depth", "start": 1, "steps": 6},
]
CHANGES: dict[str, Any] = {
    "model": {"stack": [{"repeat": 3, **STACK[0]}]}, "curriculum": ALL,
    "train": {"batch_size": 4, "max_iters": 8},
}  # fmt: skip
SIZES, LENGTHS, DEPTHS = [1, 1, 2, 2, 4, 4, 4, 4], [4] * 3 + [16] * 5, [1] * 3 + [2] * 3 + [3, 3]
PLUGIN = """
from strawberry.contracts import Curriculum, RunSite, Settings
from strawberry.plugin import hookimpl


class Own(Curriculum):
    \"\"\"Some settings.\"\"\"

    def __init__(self, site: RunSite, *, case: str) -> None:
        self.case = case

    def at(self, step: int) -> Settings:
        \"\"\"Those of the case.\"\"\"
        if self.case == "frozen":
            return Settings(frozen=("*.attention.*", "embedding") if step < 2 else ())
        if self.case == "window":
            return Settings(attributes={"*.attention.window": 2 + step})
        return Settings(batch_size=99)


@hookimpl
def strawberry_register(registry):
    registry.curriculum("own", Own)
"""


def test_steps_have_the_rows_and_lengths_of_their_stage(make_recipe: RecipeMaker) -> None:
    """No row is left out or taken twice; each is that of the whole length, cut off."""
    recipe = make_recipe(**CHANGES)
    dataset = open_dataset(recipe)
    batches = Batches(dataset, recipe, torch.device("cpu"))
    x, y = dataset.rows("train", 0, sum(SIZES), block_size=16, seed=7)
    first = 0
    for step, (size, length) in enumerate(zip(SIZES, LENGTHS, strict=True)):
        ((ids, targets),) = batches.train(step)
        np.testing.assert_array_equal(ids, x[first : first + size, :length])
        np.testing.assert_array_equal(targets, y[first : first + size, :length])
        first += size


def test_a_run_grows_is_counted_and_resumed(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of the log are literal sums; after a stop at any stage all is bit for bit the same."""
    recipe = make_recipe(**CHANGES)
    train(recipe, tmp_path / "whole")
    told = [row["tokens"] for row in rows(tmp_path / "whole") if "tokens" in row]
    assert told == np.cumsum(np.multiply(SIZES, LENGTHS)).tolist()
    for stop in (2, 5):
        with monkeypatch.context() as patch:
            StopAt(stop, patch)
            with pytest.raises(Interrupted):
                train(recipe, tmp_path / f"{stop}")
        assert load_run(tmp_path / f"{stop}").model.stack.depth == DEPTHS[stop - 1]
        train(recipe, tmp_path / f"{stop}", resume=True)
        assert rows(tmp_path / f"{stop}") == rows(tmp_path / "whole")
        assert same_weights(tmp_path / f"{stop}", tmp_path / "whole")


def test_tokens_and_flops_are_counted_beforehand(make_recipe: RecipeMaker) -> None:
    """Step by step: those of a model of that depth and length."""
    recipe = make_recipe(**CHANGES)
    flops = 0.0
    for size, length, depth in zip(SIZES, LENGTHS, DEPTHS, strict=True):
        model = {"stack": [{"repeat": depth, **STACK[0]}], "block_size": length}
        other = make_recipe(model=model, train=CHANGES["train"])
        flops += size * length * account(other, build(other, "meta")).flops_training_per_token
    run = planned(recipe)
    assert run.tokens == np.dot(SIZES, LENGTHS)
    assert run.flops == pytest.approx(flops)
    assert run.shapes == len(set(zip(SIZES, LENGTHS, DEPTHS, strict=True)))


def test_a_plain_recipe_is_the_one_stage(make_recipe: RecipeMaker) -> None:
    """Without curricula a step has what the recipe says."""
    recipe = make_recipe()
    assert list(Curricula(recipe).stages()) == [(8, Settings())]
    assert planned(recipe).tokens == 8 * 2 * 16


@pytest.mark.parametrize("case", ["frozen", "window"])
def test_a_plugin_freezes_and_adjusts(
    recipe_file: Any, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen parameters stay as they are; a component's number is that of the step."""
    from strawberry.plugin import Plugins
    from strawberry.recipe import load_recipe

    Path("own.py").write_text(PLUGIN)
    block = {"attention": {"use": "mha", "n_head": 2, "window": 8}, "ffn": "swiglu"}
    sections = {"curriculum": [{"use": "own", "case": case}], "model": {"stack": [block]}}
    plugins = Plugins.load(files=[Path("own.py")], disabled=["all"])
    path = recipe_file(train={"max_iters": 2, "eval_interval": 0}, **sections)
    recipe = load_recipe(path, plugins=plugins)
    train(recipe, tmp_path / "run")
    after = load_run(tmp_path / "run", plugins=plugins).model
    before = build(recipe)
    same = {n for n, p in after.named_parameters() if torch.equal(p, before.get_parameter(n))}
    every = {n for n, _ in after.named_parameters()}
    if case == "frozen":
        assert same == {n for n in every if ".attention." in n or n.startswith("embedding")}
    else:
        assert not same
        assert after.stack.nodes[0].attention.window == 3  # that of the last step


def test_what_cannot_be_is_refused(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """At its line, before anything is written."""
    for curriculum, message in (
        ([ALL[0], ALL[0]], "step 0: batch_size is set by another curriculum too"),
        ([{"use": "growing_depth", "start": 1}], "the stack has 1 nodes"),
        ([{"use": "length_warmup", "start": 17}], "17 is more than block_size 16"),
    ):
        with pytest.raises(RecipeError, match=message):
            train(make_recipe(curriculum=curriculum), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_build_tells_of_the_run(
    make_recipe: RecipeMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokens, FLOPs and shapes, for people and programs."""
    path = str(make_recipe(**CHANGES).source)
    assert run(["build", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["run"]
    assert told["tokens"] == np.dot(SIZES, LENGTHS)
    assert run(["build", path]) == 0
    assert "steps of 5 shapes" in capsys.readouterr().out


def test_sites_say_what_the_recipe_says(make_recipe: RecipeMaker) -> None:
    """The depth that a curriculum is told counts repeats that are written out."""
    from strawberry.runs.averages import run_site

    assert run_site(make_recipe(**CHANGES)) == RunSite(8, 4, 16, 3)
