"""What the seeds of a plan vary: initial weights, data order, dropout, or some of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

from strawberry.errors import Location, Problem, RecipeError, StrawberryError
from strawberry.plugin.registry import did_you_mean
from strawberry.recipe.seeds import Randomness, seed_of
from strawberry.recipe.spec import Recipe

VARIED: tuple[Randomness, ...] = get_args(Randomness)
WORDS = {"init": "initial weights", "data": "data order", "dropout": "dropout"}


def read_varied(given: Any, place: Location | None = None) -> tuple[Randomness, ...]:
    """The parts that `init,data` or a list of them names, in the order of `VARIED`.

    Raises RecipeError, at `place` if that is known.
    """
    words = [word.strip() for word in given.split(",")] if isinstance(given, str) else given
    message = ""
    if not isinstance(words, (list, tuple)) or not words:
        message = f"expected some of {', '.join(VARIED)}, got {given!r}"
    else:
        for word in words:
            if word not in VARIED:
                hint = did_you_mean(str(word), VARIED)
                message = f"expected some of {', '.join(VARIED)}, got {word!r}{hint}"
                break
    if message:
        raise RecipeError([Problem(message, place, "vary_seed")])
    return tuple(part for part in VARIED if part in words)


def held(varied: Collection[str], base: Recipe) -> dict[str, int]:
    """The seeds that each trial has from the recipe, by path: those of what does not vary."""
    return {f"train.{part}_seed": seed_of(base, part) for part in VARIED if part not in varied}


def check_varied(varied: Collection[str], recipe: Recipe) -> None:
    """Raises StrawberryError if a recipe fixes a seed that shall vary."""
    for part in VARIED:
        own = getattr(recipe.train, f"{part}_seed")
        if part in varied and own is not None:
            raise StrawberryError(
                f"train.{part}_seed: is {own} in every trial, and vary_seed has {part!r}: set it "
                "to null, or leave it out of vary_seed"
            )


def sentence(varied: Collection[str]) -> str:
    """Which noise the intervals are of."""
    others = [WORDS[part] for part in VARIED if part not in varied]
    text = f"Seeds vary {', '.join(WORDS[part] for part in VARIED if part in varied)}"
    return f"{text}; {' and '.join(others)} are the recipe's." if others else f"{text}."
