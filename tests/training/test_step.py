"""What is timed is what is trained: everybody takes the same step, by the same engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from strawberry.ablate.fair import seconds_per_step
from strawberry.model.stack import BlockNode
from strawberry.profiling.step import profile
from strawberry.recipe.spec import Recipe
from strawberry.training import engine
from strawberry.training.loop import train
from strawberry.training.step import Step
from tests.training.conftest import RecipeMaker

TAKERS: dict[str, Callable[[Recipe, Path], object]] = {
    "train": train,
    "profile": lambda recipe, _: profile(recipe, steps=1),
    "match time": lambda recipe, _: seconds_per_step(recipe, steps=1),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_step_clips_recomputes_and_accumulates(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taker: str
) -> None:
    """Each has the recipe's limit of the gradient, its recomputation, micro-batches, allocator."""
    recipe = make_recipe(
        train={
            "grad_clip": 1e-3, "checkpoint_activations": True, "gradient_accumulation_steps": 3,
            "document_mask": True, "max_iters": 1,
        }
    )  # fmt: skip
    kept, taken, gradient = [], [], Step.gradient

    def spied(self: Step, number: int, *rest: Any) -> Tensor:
        norm = gradient(self, number, *rest)
        model = self.engine.model
        squares = sum(
            float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None
        )
        blocks = [module for module in model.modules() if isinstance(module, BlockNode)]
        taken.append((
            len(self.rows(number)),
            all(block.recompute for block in blocks),
            model.separator is not None,
            float(norm) > 1e-3 and squares**0.5 == pytest.approx(1e-3, rel=1e-2),
        ))  # fmt: skip
        return norm

    monkeypatch.setattr(Step, "gradient", spied)
    monkeypatch.setattr(engine, "keep_freed_memory", kept.append)
    TAKERS[taker](recipe, tmp_path / "run")
    assert set(taken) == {(3, True, True, True)}
    assert kept == [recipe.train.keep_memory]


@pytest.mark.parametrize("taker", TAKERS)
def test_a_step_is_compiled_where_the_recipe_says_so(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taker: str
) -> None:
    """A profile, which tells components apart, is the one exception."""
    asked: list[object] = []
    monkeypatch.setattr(
        engine, "compile_model", lambda model, machine: asked.append(machine.compiled)
    )
    TAKERS[taker](make_recipe(train={"compile": "blocks", "max_iters": 1}), tmp_path / "run")
    assert asked == [False if taker == "profile" else "blocks"]
