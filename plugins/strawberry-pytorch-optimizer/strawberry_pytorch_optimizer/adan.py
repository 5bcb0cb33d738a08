"""Adan (Xie et al. 2022, arXiv 2208.06677, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo
from strawberry_pytorch_optimizer.library import library


class Adan(DecayingSource):
    """Adam with Nesterov momentum from differences of gradients; takes every parameter.

    `m <- b_1 m + (1 - b_1) g`, `d <- b_2 d + (1 - b_2) (g - g_{t-1})`,
    `v <- b_3 v + (1 - b_3) (g + b_2 (g - g_{t-1}))^2`; the step is
    `(m + b_2 d) / (sqrt(v) + eps)`.

    Args:
        betas: decay of the mean, of the mean difference, and of the mean square.
        eps: added to the root of the mean square.
    """

    def __init__(
        self,
        site: OptimizerSite,
        *,
        betas: tuple[Beta, Beta, Beta] = (0.98, 0.92, 0.99),
        eps: Annotated[float, Gt(0)] = 1e-8,
        weight_decay: Annotated[float, Ge(0)] = 0.02,
        **shared: Any,
    ) -> None:
        super().__init__(site, weight_decay=weight_decay, **shared)
        self.betas = betas
        self.eps = eps

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's Adan."""
        optimizer: torch.optim.Optimizer = library().Adan(
            self.groups(infos),
            lr=lr,
            betas=self.betas,
            weight_decouple=True,
            eps=self.eps,
        )
        return optimizer
