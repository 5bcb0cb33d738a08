"""Common parts of the routers that score tokens before each step.

`H + a * sigmoid(l) * f(H)` with the logit `l = theta_r . H` of step r; Bae et al. 2025, arXiv
2507.10524, section 2.2.1. Scores are computed in float32 for any precision of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from strawberry.components.routing import GATE_STD, precise
from strawberry.contracts import Router, RouterSite, State, drawn
from strawberry.errors import FieldError


class ScoringRouter(Router):
    """A linear score for each step, and the share of tokens for each step.

    Args:
        site: the recursion.
        capacity: fraction of the sequence for each step, falling; null takes 1, (R-1)/R ... 1/R.
        scale: factor on the gates.
    """

    parameter_kinds = {"weight": "router"}

    def __init__(self, site: RouterSite, capacity: Sequence[float] | None, scale: float) -> None:
        super().__init__()
        R = site.steps
        self.steps = R
        self.capacity = list(capacity or [(R - step) / R for step in range(R)])
        if len(self.capacity) != R:
            raise FieldError(
                "capacity", f"expected {R} shares, one for each step, got {len(self.capacity)}"
            )
        if any(late > early for early, late in zip(self.capacity, self.capacity[1:], strict=False)):
            raise FieldError("capacity", "shares must not increase from step to step")
        self.scale = scale
        self.weight = drawn(R, site.n_embd, std=GATE_STD, uniform=False)

    def logits(self, x: Tensor, step: int) -> Tensor:
        """The logit of each token for a step: (B, K, C) -> (B, K)."""
        return precise(lambda wide: wide @ self.weight[step].to(wide.dtype), x)

    def merge(self, x: Tensor, y: Tensor, step: int, carried: State) -> Tensor:
        """`H + gate * f(H)`, (B, K, C)."""
        return x + carried["gate"][..., None].to(y.dtype) * y

    def shares(self) -> Sequence[float]:
        """The capacities."""
        return self.capacity
