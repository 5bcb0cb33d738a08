"""Prodigy (Mishchenko and Defazio 2023, arXiv 2306.06101, algorithm 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo
from strawberry_pytorch_optimizer.library import library


class Prodigy(DecayingSource):
    """Adam that estimates its own learning rate; takes every parameter.

    `w <- w - lr d m / (sqrt(v) + d eps)`, with d an estimate of the distance to the solution
    that only grows.

    `lr` multiplies the estimate, so it is 1 and not null by default; the schedule's shape applies.

    Args:
        lr: factor on the estimated rate.
        betas: decay of the running mean and of the running mean square.
        d_coef: factor on the estimate.
        eps: added to the root of the mean square.
    """

    def __init__(
        self,
        site: OptimizerSite,
        *,
        lr: Annotated[float, Gt(0)] = 1.0,
        betas: tuple[Beta, Beta] = (0.9, 0.999),
        d_coef: Annotated[float, Gt(0)] = 1.0,
        eps: Annotated[float, Gt(0)] = 1e-8,
        weight_decay: Annotated[float, Ge(0)] = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(site, weight_decay=weight_decay, lr=lr, **shared)
        self.betas = betas
        self.d_coef = d_coef
        self.eps = eps

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's Prodigy."""
        optimizer: torch.optim.Optimizer = library().Prodigy(
            self.groups(infos),
            lr=lr,
            betas=self.betas,
            d_coef=self.d_coef,
            eps=self.eps,
        )
        return optimizer

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Note the estimate that this step uses: the library moves it within the step."""
        for group in optimizer.param_groups:
            group["d_used"] = group["d"]

    def rate(self, optimizer: torch.optim.Optimizer) -> float:
        """The schedule's factor times the estimate."""
        return super().rate(optimizer) * float(optimizer.param_groups[0]["d_used"])
