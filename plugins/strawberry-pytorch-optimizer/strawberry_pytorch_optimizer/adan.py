"""Adan (Xie et al. 2022, arXiv 2208.06677, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Beta, Decay, OptimizerSource, ParameterInfo, decay_groups
from strawberry_pytorch_optimizer.library import library


class Adan(OptimizerSource):
    """Adam with Nesterov momentum from differences of gradients; takes every parameter.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        betas: decay of the mean, of the mean difference, and of the mean square.
        eps: added to the root of the mean square.
        weight_decay: share of the learning rate by which parameters shrink each step.
        decay: what shrinks: `matrices` (two dimensions and more) or `all`.
    """

    def __init__(
        self,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        betas: tuple[Beta, Beta, Beta] = (0.98, 0.92, 0.99),
        eps: Annotated[float, Gt(0)] = 1e-8,
        weight_decay: Annotated[float, Ge(0)] = 0.02,
        decay: Decay = "matrices",
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.decay = decay

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The library's Adan."""
        optimizer: torch.optim.Optimizer = library().Adan(
            decay_groups(infos, self.weight_decay, self.decay),
            lr=lr,
            betas=self.betas,
            weight_decouple=True,
            eps=self.eps,
        )
        return optimizer
