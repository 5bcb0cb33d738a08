"""ADOPT (Taniguchi et al. 2024, arXiv 2411.02853, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt

from strawberry.contracts import Beta, Decay, OptimizerSource, ParameterInfo, decay_groups
from strawberry_pytorch_optimizer.library import library


class ADOPT(OptimizerSource):
    """Adam that normalises by the mean square of earlier gradients alone; takes every parameter.

    The first step only takes that mean square, and moves nothing.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        betas: decay of the running mean and of the running mean square.
        eps: least root of the mean square.
        weight_decay: share of the learning rate by which parameters shrink each step.
        decay: what shrinks: `matrices` (two dimensions and more) or `all`.
    """

    def __init__(
        self,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        betas: tuple[Beta, Beta] = (0.9, 0.9999),
        eps: Annotated[float, Gt(0)] = 1e-6,
        weight_decay: Annotated[float, Ge(0)] = 0.1,
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
        """The library's ADOPT."""
        optimizer: torch.optim.Optimizer = library().ADOPT(
            decay_groups(infos, self.weight_decay, self.decay),
            lr=lr,
            betas=self.betas,
            weight_decouple=True,
            eps=self.eps,
        )
        return optimizer
