"""Warm-ups and decays that are too long for a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.recipe.walk import specs
from strawberry.training.optimizers import make_schedule

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe


def untimely(recipe: Recipe) -> list[str]:
    """A warning for each warm-up and decay that a run of this many steps doesn't finish."""
    train, schedule = recipe.train, make_schedule(recipe)
    steps, warmup, end = train.max_iters, train.warmup_iters, train.lr_decay_iters
    last, warnings = schedule(steps - 1), []
    if warmup >= steps and last < train.learning_rate:
        warnings.append(
            f"the warm-up takes {warmup} steps, but the run has {steps}: the learning rate "
            "never reaches its peak; lower train.warmup_iters"
        )
    elif end is not None and warmup > end and schedule(warmup) < train.learning_rate:
        warnings.append(
            f"the decay ends at step {end}, before the warm-up at step {warmup}: the "
            "learning rate never reaches its peak"
        )
    if end is not None and end > steps and last > schedule(end):
        warnings.append(
            f"the decay ends at step {end}, but the run has {steps}: the learning rate "
            "never reaches its end; leave out train.lr_decay_iters"
        )
    for spec in specs(recipe, "model", "optimizer", "schedule"):
        for name, value in spec.fields.items():
            if name.endswith("warmup") and isinstance(value, int) and value >= steps:
                warnings.append(
                    f"{spec.use}: its {name} takes {value} steps, but the run has {steps}"
                )
    return list(dict.fromkeys(warnings))
