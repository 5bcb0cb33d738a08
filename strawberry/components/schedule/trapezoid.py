"""Warm-up, a constant part, and a cosine cooldown: the seed project's schedule."""

from __future__ import annotations

import math
from fractions import Fraction

from strawberry.model.contracts import Schedule, ScheduleSite


class Trapezoid(Schedule):
    """Linear warm-up, then the peak, then half a cosine down to `min_lr`.

    The warm-up lasts `warmup_iters` steps and begins at peak / (warmup_iters + 1); the cooldown
    takes the last `cooldown_frac` of `lr_decay_iters`; after that the rate is `min_lr`. Where they
    overlap the warm-up wins.
    """

    def __init__(self, site: ScheduleSite) -> None:
        self.site = site
        # Exactly floor((1 - f) N): in floating point (1 - 0.9) * 10 is less than 1.
        share = 1 - Fraction(str(site.cooldown_frac))
        self.start = math.floor(share * site.lr_decay_iters)

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        s = self.site
        if step < s.warmup_iters:
            return s.learning_rate * (step + 1) / (s.warmup_iters + 1)
        if step <= self.start:
            return s.learning_rate
        if step > s.lr_decay_iters:
            return s.min_lr
        done = (step - self.start) / (s.lr_decay_iters - self.start)
        return s.min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (s.learning_rate - s.min_lr)
