"""Ideas of training as single files that use the public API alone: each trains."""

from __future__ import annotations

import ast
import inspect
import runpy
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import strawberry.contracts as api
from strawberry.contracts import Averaging, Curriculum, Measure, Objective
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.training import train
from tests.training.conftest import corpus, recipe_file

__all__ = ["corpus", "recipe_file"]

HERE = Path(__file__).parent
NAMES = ("multi_token", "early_exit", "deep_supervision", "masked_diffusion", "distillation",
         "warmups", "progressive_depth", "cautious_decay", "sam", "tiny_recursive",
         "normuon")  # fmt: skip


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
    model = {"stack": stack, "dropout": 0.0}
    plugins = Plugins.load(files=[file], disabled=["all"])
    if name == "distillation":
        train(load_recipe(recipe_file("one", model=model, train=short), plugins=plugins), "teacher")
    recipe = load_recipe(recipe_file("two", model=model, train=short, **sections), plugins=plugins)
    result = train(recipe, tmp_path / "run")
    assert 0 < result.metrics["val_loss"] < 8
    assert result.breaches == ()


@pytest.mark.parametrize("contract", [Objective, Averaging, Curriculum, Measure])
def test_the_example_of_a_contract_is_one(contract: type) -> None:
    """The class in its docstring can be made, and does what the contract asks."""
    text = inspect.getdoc(contract) or ""
    lines = [line for line in text.splitlines() if line.startswith("    ") or not line]
    code = textwrap.dedent("\n".join(lines[: _end(lines)]))
    names = {name: getattr(api, name) for name in api.__all__}
    space: dict[str, Any] = {**names, "F": F, "torch": torch, "Tensor": torch.Tensor}
    space["Callable"] = Callable
    exec(compile(ast.parse(code), contract.__name__, "exec"), space)  # our own docstring
    (made,) = (v for v in space.values() if isinstance(v, type) and contract in v.__mro__[1:]
               and v.__module__ == "builtins")  # fmt: skip
    site = api.RunSite(10, 4, 16, 2)
    built = made(site)
    if contract is Curriculum:
        assert built.at(0).batch_size == 2
    elif contract is Measure:
        hits = built.measure(lambda ids: F.one_hot(ids, 7), torch.arange(4)[None], torch.arange(4))
        assert [int(part) for part in hits["hits"]] == [4, 4]
    elif contract is Averaging:
        kept: dict[str, torch.Tensor] = {}
        for step in range(99, 104):
            built.update(kept, torch.full((2,), float(step)), step)
        assert built.value(kept, 103).tolist() == [101.5, 101.5]
    else:
        logits = torch.randn(5, 7)
        assert (built.each(logits, torch.arange(5)) > 0).all()


def _end(lines: list[str]) -> int:
    """Where the indented class ends: at the attributes."""
    starts = [i for i, line in enumerate(lines) if line.startswith("    class ")]
    for i in range(starts[0], len(lines)):
        if lines[i] and not lines[i].startswith("        ") and i > starts[0]:
            return i
    return len(lines)
