"""Compiled training: one graph, no breaks, nothing compiled again, the numbers of eager mode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import strawberry
from strawberry.generation import Sampling, sample_ids
from strawberry.model.language_model import LanguageModel
from strawberry.runs.device import Machine, machine_for
from strawberry.training.compiling import VARIABLE, compile_model, keep_compiled
from tests.training.conftest import RecipeMaker

BLOCK: dict[str, Any] = {
    "attention": {"use": "mha", "n_head": 2, "n_kv_head": 1},
    "ffn": {"use": "swiglu", "n_ffn": 24},
}
STACKS: dict[str, list[dict[str, Any]]] = {
    "deep": [{"repeat": 6, **BLOCK}],
    "recursive": [{"recur": 3, "weights": {"use": "factorized", "rank": 4}, "stack": [BLOCK]}],
}


TORCHS_OWN = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning"
)
"""The compiler imports what torch itself has deprecated, and looks at gradients of any tensor."""


@pytest.fixture(autouse=True)
def _fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No graph of another test; graphs are run as they were captured, which needs no C compiler."""
    monkeypatch.setenv(VARIABLE, os.environ.get(VARIABLE, ""))
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    torch._dynamo.reset()


def compiled_model(make_recipe: RecipeMaker, stack: str, how: Any) -> LanguageModel:
    recipe = make_recipe(model={"stack": STACKS[stack], "positional": "rope", "dropout": 0.0})
    model = strawberry.build(recipe).train()
    compile_model(model, Machine(torch.device("cpu"), torch.float32, compiled=how))
    return model


def use_it(model: LanguageModel) -> list[float]:
    """A training step, an evaluation and a generation; the losses."""
    ids = torch.arange(32).view(2, 16)
    step = model.loss(ids, ids).total
    step.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    model.eval()
    with torch.no_grad():
        evaluated = model.loss(ids, ids).total
    list(sample_ids(model, ids[:1, :3], 4, Sampling(0.0), torch.Generator()))
    model.train()
    return [step.item(), evaluated.item()]


@pytest.mark.slow
@TORCHS_OWN
@pytest.mark.parametrize(
    ("stack", "how", "graphs"),
    [
        ("deep", True, 2),  # one with gradients, one without
        ("recursive", True, 2),
        ("deep", "blocks", 4),  # and the first block of a pass, which computes the rotations
        ("recursive", "blocks", 4),
    ],
)
def test_one_graph_and_nothing_twice(
    make_recipe: RecipeMaker, stack: str, how: Any, graphs: int
) -> None:
    """The first round compiles; later steps, evaluations and generations find all they need."""
    eager = use_it(compiled_model(make_recipe, stack, False))
    model = compiled_model(make_recipe, stack, how)
    assert use_it(model) == pytest.approx(eager, rel=1e-5)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(2):
            assert use_it(model) == pytest.approx(eager, rel=1e-5)


@pytest.mark.slow
@TORCHS_OWN
def test_depth_costs_no_graphs(make_recipe: RecipeMaker) -> None:
    """Twelve equal blocks, compiled by block, are as many graphs as six."""
    recipe = make_recipe(model={"stack": [{"repeat": 12, **BLOCK}], "positional": "rope"})
    model = strawberry.build(recipe).train()
    compile_model(model, Machine(torch.device("cpu"), torch.float32, compiled="blocks"))
    use_it(model)
    assert counters["stats"]["unique_graphs"] == 4


def test_the_recipe_says_how(make_recipe: RecipeMaker) -> None:
    """`compile: blocks` is a value of its own; `auto` does not compile on a CPU."""
    for value, expected in (("auto", False), (True, True), (False, False), ("blocks", "blocks")):
        assert machine_for(make_recipe(train={"compile": value})).compiled == expected


def test_what_was_compiled_is_kept_where_others_find_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the user's cache folder, unless the user says where."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path))
    monkeypatch.delenv(VARIABLE)
    keep_compiled()
    assert os.environ[VARIABLE] == str(tmp_path / "compiled")
    monkeypatch.setenv(VARIABLE, "elsewhere")
    keep_compiled()
    assert os.environ[VARIABLE] == "elsewhere"


@pytest.mark.slow
@TORCHS_OWN
@pytest.mark.parametrize("how", [True, "blocks"])
def test_kernels_give_the_numbers_of_eager_mode(
    make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """With torch's own code generator too."""
    eager = use_it(compiled_model(make_recipe, "deep", False))
    monkeypatch.undo()
    model = compiled_model(make_recipe, "deep", how)
    for _ in range(2):
        assert use_it(model) == pytest.approx(eager, rel=1e-4)
