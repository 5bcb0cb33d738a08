"""Lion: the sign of a momentum (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

# ruff: noqa: SLF001 (so torch names what works on many tensors at once)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo


class Lion(DecayingSource):
    """Moves every number by the same amount in each step; takes every parameter.

    `w <- w - lr (sign(b_1 m + (1 - b_1) g) + decay w)`, then `m <- b_2 m + (1 - b_2) g`.

    Its state is one number for each. Its learning rate should be a third to a tenth of AdamW's, and
    its weight decay larger by the same factor.

    Args:
        betas: fraction of the momentum in the step's direction, and fraction of it that is kept.
    """

    shards = True

    def __init__(
        self,
        site: OptimizerSite,
        *,
        betas: tuple[Beta, Beta] = (0.9, 0.99),
        weight_decay: Annotated[float, Ge(0)] = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(site, weight_decay=weight_decay, **shared)
        self.betas = betas

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """Return `SignMomentum(...)`."""
        groups = self.groups(infos)
        return SignMomentum(groups, {"lr": lr, "betas": self.betas})


class SignMomentum(torch.optim.Optimizer):
    """Algorithm 2, over all tensors of a group at once.

    theta <- theta - lr (sign(beta1 m + (1 - beta1) g) + decay theta); m <- beta2 m + (1 - beta2) g.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            momenta = [self._momentum(p) for p in parameters]
            beta1, beta2 = group["betas"]
            directions = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum
