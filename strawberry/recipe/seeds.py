"""The seeds of a run: one for all randomness, or one for each source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe

Randomness: TypeAlias = Literal["init", "data", "dropout"]


def seed_of(recipe: Recipe, what: Randomness) -> int:
    """The seed of the initial weights, of the rows, or of dropout and noise."""
    own: int | None = getattr(recipe.train, f"{what}_seed")
    return recipe.seed if own is None else own
