"""Runs that are too short for their warm-up or decay."""

from __future__ import annotations

from typing import Any

import pytest

from strawberry.training import train
from strawberry.training.horizon import untimely
from tests.training.conftest import RecipeMaker


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"warmup_iters": 7}, ""),
        ({"warmup_iters": 8}, "the warm-up takes 8 steps, but the run has 8"),
        ({"lr_decay_iters": 8}, ""),
        ({"lr_decay_iters": 9}, "the decay ends at step 9, but the run has 8"),
        ({"warmup_iters": 6, "lr_decay_iters": 4}, "before the warm-up at step 6"),
    ],
)
def test_a_short_run_is_told(
    make_recipe: RecipeMaker, sections: dict[str, Any], expected: str
) -> None:
    """A rate that never comes to its peak or its end is one line; one that just does is none."""
    lines = untimely(make_recipe(train=sections))
    assert len(lines) == bool(expected)
    assert expected in "".join(lines)


def test_what_plays_no_part_is_not_told(make_recipe: RecipeMaker) -> None:
    """A constant rate has neither warm-up nor decay."""
    recipe = make_recipe(schedule="constant", train={"warmup_iters": 99, "lr_decay_iters": 99})
    assert untimely(recipe) == []


def test_components_have_warm_ups_too(make_recipe: RecipeMaker, tmp_path: Any) -> None:
    """An optimizer's own warm-up is told by its name, and training says so before it begins."""
    said: list[str] = []
    recipe = make_recipe(optimizer={"use": "muon", "momentum_warmup": 8})
    train(recipe, tmp_path / "run", warn=said.append)
    assert "strawberry/muon: its momentum_warmup takes 8 steps, but the run has 8" in said
