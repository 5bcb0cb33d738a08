"""Warm-up and cosine decay (Loshchilov and Hutter 2016, arXiv 1608.03983, eq. 5, one period)."""

from __future__ import annotations

import math

from strawberry.model.contracts import Schedule, ScheduleSite


class Cosine(Schedule):
    """Linear warm-up, then half a cosine from the peak down to `min_lr` at `lr_decay_iters`."""

    def __init__(self, site: ScheduleSite) -> None:
        self.site = site

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        s = self.site
        if step < s.warmup_iters:
            return s.learning_rate * (step + 1) / (s.warmup_iters + 1)
        if step >= s.lr_decay_iters:
            return s.min_lr
        done = (step - s.warmup_iters) / (s.lr_decay_iters - s.warmup_iters)
        return s.min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (s.learning_rate - s.min_lr)
