"""Warm-up and cosine decay (Loshchilov and Hutter 2016, arXiv 1608.03983, eq. 5, one period)."""

from __future__ import annotations

from strawberry.components.schedule.parts import cooldown, warmup
from strawberry.contracts import Schedule, ScheduleSite


class Cosine(Schedule):
    """Linear warm-up, then half a cosine from the peak down to `min_lr` at `lr_decay_iters`.

    `r = r_end + (1 + cos(pi f)) / 2 * (r_peak - r_end)` after the fraction f of the decay.
    """

    def __init__(self, site: ScheduleSite) -> None:
        self.site = site

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        if step < self.site.warmup_iters:
            return warmup(self.site, step)
        return cooldown(self.site, "cosine", self.site.warmup_iters, step)
