"""Common parts of schedules: the warm-up, the start of a cooldown, and its forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal, TypeAlias

from strawberry.contracts import ScheduleSite

Form: TypeAlias = Literal["linear", "sqrt", "cosine"]

FORMS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "sqrt": lambda done: 1 - math.sqrt(done),
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
"""The remaining factor of a cooldown after the fraction `done`: from 1 down to 0."""


def warmup(site: ScheduleSite, step: int) -> float:
    """The rate of a step within the warm-up: peak / (W + 1) at step 0, the peak at step W."""
    return site.learning_rate * (step + 1) / (site.warmup_iters + 1)


def cooldown(site: ScheduleSite, form: Form, start: int, step: int) -> float:
    """The rate of a step: the peak at `start`, `min_lr` at `lr_decay_iters` and after it."""
    if step >= site.lr_decay_iters:
        return site.min_lr
    done = (step - start) / (site.lr_decay_iters - start)
    return site.min_lr + FORMS[form](done) * (site.learning_rate - site.min_lr)


def cooldown_start(site: ScheduleSite) -> int:
    """The first step of the last `cooldown_frac` of `lr_decay_iters`.

    It is exactly floor((1 - f) N), although in floating point (1 - 0.9) * 10 is less than 1.
    """
    return math.floor((1 - Fraction(str(site.cooldown_frac))) * site.lr_decay_iters)
