"""Ideas of training as single files that use the public API alone: each trains."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.training import train
from tests.training.conftest import corpus, recipe_file

__all__ = ["corpus", "recipe_file"]

HERE = Path(__file__).parent
NAMES = ("multi_token", "early_exit", "deep_supervision", "masked_diffusion", "distillation",
         "warmups", "progressive_depth", "cautious_decay", "sam", "tiny_recursive",
         "normuon", "untied")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_idea_trains(
    name: str, recipe_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In at most 60 lines: steps change the weights, losses are finite, the referee objects not."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    file = HERE / f"{name}.py"
    assert len(file.read_text().splitlines()) <= 60
    sections = dict(runpy.run_path(str(file))["RECIPE"])
    attention = sections.pop("attention", {"use": "mha", "n_head": 2})
    block = {"attention": attention, "ffn": "swiglu"}
    stack = [block, {"recur": 2, "stack": [block]}, block]
    short = {"max_iters": 4, "eval_interval": 0, "batch_size": 2}
    model = {"stack": stack, "dropout": 0.0, **sections.pop("model", {})}
    plugins = Plugins.load(files=[file], disabled=["all"])
    if name == "distillation":
        train(load_recipe(recipe_file("one", model=model, train=short), plugins=plugins), "teacher")
    recipe = load_recipe(recipe_file("two", model=model, train=short, **sections), plugins=plugins)
    result = train(recipe, tmp_path / "run")
    assert 0 < result.metrics["val_loss"] < 8
    assert result.breaches == ()
