"""Warm-up, a constant part, and a cosine cooldown: the original project's schedule."""

from __future__ import annotations

from strawberry.components.schedule.parts import cooldown, cooldown_start, warmup
from strawberry.contracts import Schedule, ScheduleSite


class Trapezoid(Schedule):
    """Linear warm-up, then the peak, then half a cosine down to `min_lr`.

    `r = r_end + (1 + cos(pi f)) / 2 * (r_peak - r_end)` after the fraction f of the cooldown.

    The warm-up lasts `warmup_iters` steps and begins at peak / (warmup_iters + 1); the cooldown
    takes the last `cooldown_frac` of `lr_decay_iters`; after that the rate is `min_lr`. If they
    overlap, the warm-up wins.
    """

    def __init__(self, site: ScheduleSite) -> None:
        self.site = site
        self.start = cooldown_start(site)

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        if step < self.site.warmup_iters:
            return warmup(self.site, step)
        if step <= self.start:
            return self.site.learning_rate
        return cooldown(self.site, "cosine", self.start, step)
