"""ADOPT (Taniguchi et al. 2024, arXiv 2411.02853, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo
from strawberry_pytorch_optimizer.library import library


class ADOPT(DecayingSource):
    """Adam that normalises by the mean square of earlier gradients alone; takes every parameter.

    `m <- b_1 m + (1 - b_1) g / max(sqrt(v_{t-1}), eps)`, `w <- w - lr m`; only then does v take
    in g.

    The first step only takes that mean square, and moves nothing.

    Args:
        betas: decay of the running mean and of the running mean square.
        eps: least root of the mean square.
    """

    def __init__(
        self,
        site: OptimizerSite,
        *,
        betas: tuple[Beta, Beta] = (0.9, 0.9999),
        eps: Annotated[float, Gt(0)] = 1e-6,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.betas = betas
        self.eps = eps

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's ADOPT."""
        optimizer: torch.optim.Optimizer = library().ADOPT(
            self.groups(infos),
            lr=lr,
            betas=self.betas,
            weight_decouple=True,
            eps=self.eps,
        )
        return optimizer
