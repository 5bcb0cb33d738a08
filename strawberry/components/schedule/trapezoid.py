"""Warm-up, a constant part, and a cosine cooldown: the original project's schedule."""

from __future__ import annotations

from strawberry.components.schedule.wsd import WSD
from strawberry.contracts import ScheduleSite


class Trapezoid(WSD):
    """Linear warm-up, then the peak, then half a cosine down to `min_lr`.

    `r = r_end + (1 + cos(pi f)) / 2 * (r_peak - r_end)` after the fraction f of the cooldown.

    The warm-up lasts `warmup_iters` steps and begins at peak / (warmup_iters + 1); the cooldown
    takes the last `cooldown_frac` of `lr_decay_iters`; after that the rate is `min_lr`. If they
    overlap, the warm-up wins.
    """

    def __init__(self, site: ScheduleSite) -> None:
        super().__init__(site, decay="cosine")
