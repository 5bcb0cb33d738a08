"""The seeds of a run: one for all that is random, or one for each kind of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from annotated_types import Ge, Le

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe

Randomness: TypeAlias = Literal["init", "data", "dropout"]


@dataclass(frozen=True, kw_only=True)
class SeedFields:
    """Seeds of a part of what is random.

    Args:
        init_seed: seed of the initial weights; null takes the recipe's `seed`.
        data_seed: seed of the training rows; null takes the recipe's `seed`.
        dropout_seed: seed of dropout and other noise in training; null takes the recipe's `seed`.
    """

    init_seed: Annotated[int, Ge(0), Le(2**63 - 1)] | None = None
    data_seed: Annotated[int, Ge(0), Le(2**63 - 1)] | None = None
    dropout_seed: Annotated[int, Ge(0), Le(2**63 - 1)] | None = None


def seed_of(recipe: Recipe, what: Randomness) -> int:
    """The seed of the initial weights, of the rows, or of dropout and noise."""
    own: int | None = getattr(recipe.train, f"{what}_seed")
    return recipe.seed if own is None else own
