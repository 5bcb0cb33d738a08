"""Warm-up and linear decay (Devlin et al. 2018, arXiv 1810.04805, appendix A.2)."""

from __future__ import annotations

from strawberry.components.schedule.parts import cooldown, warmup
from strawberry.contracts import Schedule, ScheduleSite


class Linear(Schedule):
    """Linear warm-up, then a straight line from the peak down to `min_lr` at `lr_decay_iters`.

    `r = r_end + (1 - f) * (r_peak - r_end)` after the fraction f of the decay.
    """

    def __init__(self, site: ScheduleSite) -> None:
        self.site = site

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        if step < self.site.warmup_iters:
            return warmup(self.site, step)
        return cooldown(self.site, "linear", self.site.warmup_iters, step)
