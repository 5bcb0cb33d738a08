"""What a whole run comes to: tokens and FLOPs, whatever its curricula change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from strawberry.model.accounting import account
from strawberry.model.build import build
from strawberry.recipe import patch
from strawberry.runs.curricula import Curricula, put_settings

if TYPE_CHECKING:
    from strawberry.contracts import Settings
    from strawberry.recipe.spec import Recipe


class Planned(NamedTuple):
    """Tokens and FLOPs of all steps of a run, and how many shapes its steps have."""

    tokens: int
    flops: float
    shapes: int


def planned(recipe: Recipe) -> Planned:
    """Count the run of a recipe; raises RecipeError if it can't be built."""
    curricula, parts = Curricula(recipe), recipe.train.gradient_accumulation_steps
    per_token: dict[str, float] = {}
    shapes = set[str]()
    flops = 0.0
    for steps, settings in curricula.stages():
        rows = (settings.batch_size or recipe.train.batch_size) * parts
        tokens = rows * (settings.block_size or recipe.model.block_size)
        key = repr((settings.block_size, settings.depth, settings.attributes))
        shapes.add(repr((settings.batch_size, key)))
        if key not in per_token:
            per_token[key] = _flops_per_token(recipe, settings)
        flops += steps * tokens * per_token[key]
    return Planned(curricula.tokens_before(recipe.train.max_iters), flops, len(shapes))


def _flops_per_token(recipe: Recipe, settings: Settings) -> float:
    if settings.block_size is not None:
        recipe = patch(recipe, {"model.block_size": settings.block_size})
    model = build(recipe, "meta")
    put_settings(model, settings)
    return account(recipe, model).flops_training_per_token
