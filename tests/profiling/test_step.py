"""Where a step's time and memory go: sums, uses and counted work, against what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.profiling.step import StepProfile, draw, profile
from strawberry.ranks.world import World
from strawberry.runs.device import machine_for
from strawberry.training.engine import engine_for
from tests.training.conftest import RecipeMaker

BLOCK: dict[str, Any] = {
    "attention": {"use": "mha", "n_head": 2},
    "ffn": {"use": "swiglu", "n_ffn": 24},
}


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's peak is not looked at here."""
    monkeypatch.setattr("strawberry.profiling.step.SIDE", 64)


def rows_of(found: StepProfile) -> dict[str, Any]:
    return {row.name: row for row in found.rows}


@pytest.mark.parametrize("recompute", [False, True])
def test_rows_add_up_to_the_step(make_recipe: RecipeMaker, recompute: bool) -> None:
    """Every second, and every FLOP that torch sees in a step, is in exactly one row."""
    recipe = make_recipe(
        model={"stack": [{"repeat": 2, **BLOCK}]},
        optimizer={"use": "adamw"},  # which has no matrix products
        train={"checkpoint_activations": recompute},
    )
    found = profile(recipe, steps=2)
    assert sum(row.seconds for row in found.rows) == pytest.approx(found.seconds, rel=1e-6)
    model = engine_for(recipe, World(), machine_for(recipe)).model.train()
    ids = torch.zeros(recipe.train.batch_size, recipe.model.block_size, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model.loss(ids, ids).total.backward()
    assert sum(row.flops for row in found.rows) == counter.get_total_flops()
    rows = rows_of(found)
    assert set(rows) >= {"data", "embedding", "norms", "head and loss", "optimizer", "rest"}
    assert rows["norms"].uses == 5
    for name in ("stack[0].attention", "stack[0].ffn"):
        assert rows[name].uses == 2
        assert 0 < rows[name].backward_seconds < rows[name].seconds
        assert (rows[name].kept_bytes > 0) != recompute


def test_what_is_recomputed_counts_for_its_part(make_recipe: RecipeMaker) -> None:
    """A block that recomputes: its parts do their forward work twice, which is a third more."""
    plain, again = (
        rows_of(profile(make_recipe(model={"stack": [BLOCK]}, train=train), steps=1))
        for train in ({}, {"checkpoint_activations": True})
    )
    for name in ("stack[0].attention", "stack[0].ffn"):
        assert again[name].flops > 1.2 * plain[name].flops
        assert again[name].uses == plain[name].uses == 1
    assert 3 * again["stack[0].ffn"].flops == 4 * plain["stack[0].ffn"].flops
    for name in ("head and loss", "embedding", "rest"):
        assert again[name].flops == plain[name].flops


def test_the_flops_of_a_part_are_those_of_its_matrices(make_recipe: RecipeMaker) -> None:
    """A network of two matrices: two FLOPs a multiply-add, forward once and backward twice."""
    found = profile(make_recipe(model={"stack": [BLOCK]}), steps=1)
    width, hidden = 16, 24
    forward = 2 * found.tokens * (2 * hidden * width + hidden * width)
    assert rows_of(found)["stack[0].ffn"].flops == 3 * forward


@pytest.mark.parametrize("router", [None, {"use": "expert_choice", "capacity": [1.0, 0.5, 0.5]}])
def test_a_shared_block_is_one_row(make_recipe: RecipeMaker, router: Any) -> None:
    """Three recursion steps over one block: one row, used three times, with all of its work."""
    recur = {"recur": 3, "stack": [BLOCK], **({} if router is None else {"router": router})}
    once = rows_of(profile(make_recipe(model={"stack": [BLOCK]}), steps=1))
    rows = rows_of(profile(make_recipe(model={"stack": [recur]}), steps=1))
    assert rows["stack[0].stack[0].ffn"].uses == 3
    times = 3 if router is None else 2  # capacities sum to two
    assert rows["stack[0].stack[0].ffn"].flops == times * once["stack[0].ffn"].flops
    assert ("routers" in rows) == (router is not None)


def test_state_of_the_optimizer_is_counted(make_recipe: RecipeMaker) -> None:
    """Adam keeps two numbers for each parameter, and a counter for each tensor."""
    recipe = make_recipe(optimizer={"use": "adamw"})
    model = build(recipe)
    numbers = sum(p.numel() for p in model.parameters())
    counters = len(list(model.parameters()))
    optimizer = rows_of(profile(recipe, steps=1))["optimizer"]
    assert optimizer.kept_bytes == 4 * (2 * numbers + counters)


def test_accumulated_steps_are_one_step(make_recipe: RecipeMaker) -> None:
    """With two micro-batches a part is used twice as often, and the optimizer once."""
    recipe = make_recipe(
        model={"stack": [BLOCK]}, train={"gradient_accumulation_steps": 2, "dtype": "bfloat16"}
    )
    found = profile(recipe, steps=1)
    assert found.tokens == 2 * recipe.train.batch_size * recipe.model.block_size
    assert found.dtype == "bfloat16"
    assert (rows_of(found)["stack[0].ffn"].uses, rows_of(found)["optimizer"].uses) == (2, 1)


def test_no_steps_are_refused(make_recipe: RecipeMaker) -> None:
    """One line, before anything is read."""
    with pytest.raises(StrawberryError, match="steps must be at least 1, got 0"):
        profile(make_recipe(), steps=0)


def test_the_picture(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A bar a row, in the form that the ending names; another ending is one line."""
    found = profile(make_recipe(), steps=1)
    picture = draw(found, tmp_path / "step.svg").read_text()
    for row in found.rows:
        assert row.name in picture
    with pytest.raises(StrawberryError, match="can't write"):
        draw(found, tmp_path / "step.nothing")
