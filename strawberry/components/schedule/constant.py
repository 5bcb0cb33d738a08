"""A constant learning rate."""

from __future__ import annotations

from strawberry.contracts import Schedule, ScheduleSite


class Constant(Schedule):
    """`train.learning_rate` at every step, without a warm-up: the original's `decay_lr: false`."""

    def __init__(self, site: ScheduleSite) -> None:
        self.site = site

    def __call__(self, step: int) -> float:
        """The peak, at every step."""
        return self.site.learning_rate
