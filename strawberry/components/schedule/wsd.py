"""Warm-up, stable, decay (Hu et al. 2024, MiniCPM, arXiv 2404.06395, section 4)."""

from __future__ import annotations

from strawberry.components.schedule.parts import Form, cooldown, cooldown_start, warmup
from strawberry.contracts import Schedule, ScheduleSite


class WSD(Schedule):
    """Linear warm-up, then the peak, then a cooldown to `min_lr` at `lr_decay_iters`.

    `r = r_end + (1 - sqrt(f)) * (r_peak - r_end)` after the fraction f of the cooldown, with
    the form `sqrt`.

    The cooldown takes the last `cooldown_frac` of `lr_decay_iters`; with 0 there is none, and the
    peak lasts through that step. If they overlap, the warm-up wins. The square root is that of
    Haegele et al. 2024, arXiv 2405.18392: 1 - sqrt(fraction of the cooldown).

    Args:
        decay: form of the cooldown: `linear`, `sqrt` (steep at first) or `cosine` (half a period,
            which equals `trapezoid`).
    """

    def __init__(self, site: ScheduleSite, *, decay: Form = "linear") -> None:
        self.site = site
        self.decay = decay
        self.start = cooldown_start(site)

    def __call__(self, step: int) -> float:
        """The learning rate of `step`, from 0."""
        if step < self.site.warmup_iters:
            return warmup(self.site, step)
        if step <= self.start:
            return self.site.learning_rate
        return cooldown(self.site, self.decay, self.start, step)
