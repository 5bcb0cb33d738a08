"""What is tried, and what it changes in a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from strawberry.ablate.cells import draws
from strawberry.ablate.plan import Range, Values
from strawberry.ladder.rungs import rates
from strawberry.recipe.spec import Recipe

OWN: Final = "recipe"
"""The name of the recipe's own settings, which are always tried."""
RATES: Final = Range(0.25, 8.0)
"""Factors on every peak learning rate."""
WARMUPS: Final = Range(0.005, 0.2)
"""Shares of a run that the warm-up takes."""
BATCHES: Final = (0.5, 1, 2, 4)
"""Factors on the batch size."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings to try.

    Attributes:
        rate: factor on every peak learning rate of the recipe.
        batch: sequences of a micro-batch.
        warmup: share of the steps that the warm-up takes.
    """

    rate: float
    batch: int
    warmup: float

    @property
    def name(self) -> str:
        """What tells it from the others of a search."""
        return f"rate x{self.rate:g} batch {self.batch} warm-up {self.warmup:.1%}"


def own(recipe: Recipe) -> Choice:
    """The settings that a recipe has."""
    train = recipe.train
    return Choice(1.0, train.batch_size, train.warmup_iters / train.max_iters)


def batches(recipe: Recipe) -> list[int]:
    """The batch sizes to try, the recipe's own first; each divides the largest."""
    size = recipe.train.batch_size
    whole = [size * factor for factor in BATCHES if size * factor == int(size * factor)]
    return list(dict.fromkeys([size, *map(int, whole)]))


def choices(recipe: Recipe, sizes: list[int], count: int) -> dict[str, Choice]:
    """So many settings by name: the recipe's own, then points of the space that Sobol' spreads.

    Args:
        recipe: the recipe.
        sizes: the batch sizes.
        count: how many settings there are in all.
    """
    space: dict[str, Values] = {"rate": RATES, "batch": tuple(sizes), "warmup": WARMUPS}
    drawn = [Choice(*point) for point in draws(space, count - 1, recipe.seed)]
    rounded = [Choice(rounding(c.rate, 2), c.batch, rounding(c.warmup, 2)) for c in drawn]
    return {OWN: own(recipe), **{choice.name: choice for choice in rounded}}


def rounding(value: float, digits: int) -> float:
    """A number with so many significant digits."""
    return float(f"{value:.{digits}g}")


def changes(recipe: Recipe, choice: Choice, steps: int) -> dict[str, Any]:
    """What settings change in a recipe for a run of so many steps, by path.

    What goes by steps keeps its share of the run.
    """
    train = recipe.train
    share = steps / train.max_iters
    changed: dict[str, Any] = {"train.max_iters": steps, "train.batch_size": choice.batch}
    changed["train.warmup_iters"] = round(choice.warmup * steps)
    if train.lr_decay_iters is not None:
        changed["train.lr_decay_iters"] = max(1, round(train.lr_decay_iters * share))
    if choice.rate != 1:
        for path, rate in rates(recipe).items():
            changed[path] = rounding(rate * choice.rate, 3)
    return changed


def trial(recipe: Recipe, choice: Choice, steps: int, largest: int) -> dict[str, Any]:
    """The same for a trial: it is evaluated once, at its end, on the same rows as all others.

    Args:
        recipe: the recipe.
        choice: the settings.
        steps: steps of the trial.
        largest: the largest batch size of the search.
    """
    rows = math.ceil(recipe.train.eval_iters * recipe.train.batch_size / largest) * largest
    return {
        **changes(recipe, choice, steps),
        "train.eval_iters": math.ceil(rows / choice.batch),
        "train.eval_interval": 0,
        "train.checkpoint_interval": max(1, math.ceil(steps / 4)),
        "train.log_interval": 1,
    }
