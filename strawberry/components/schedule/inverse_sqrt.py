"""Warm-up and decay by the root of the step (Vaswani et al. 2017, arXiv 1706.03762, eq. 3)."""

from __future__ import annotations

import math

from strawberry.components.schedule.parts import warmup
from strawberry.contracts import Schedule, ScheduleSite


class InverseSqrt(Schedule):
    """Linear warm-up, then a decay by the root of the step, without an end.

    `r_t = r_peak * sqrt((W + 1) / (t + 1))` at step t, after W steps of warm-up.

    The peak is reached at step `warmup_iters`. The rate never falls below `min_lr`;
    `lr_decay_iters` and `cooldown_frac` have no effect.
    """

    def __init__(self, site: ScheduleSite) -> None:
        self.site = site

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        s = self.site
        if step < s.warmup_iters:
            return warmup(s, step)
        return max(s.min_lr, s.learning_rate * math.sqrt((s.warmup_iters + 1) / (step + 1)))
