"""AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2), by torch's fused kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from strawberry.contracts import Beta, Decay, OptimizerSource, ParameterInfo, decay_groups


class AdamW(OptimizerSource):
    """Adam with decoupled weight decay; takes every parameter.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        betas: decay of the running mean and of the running mean square.
        eps: added to the root of the mean square.
        weight_decay: share of the learning rate by which parameters shrink each step.
        decay: what shrinks: `matrices` (two dimensions and more) or `all`.
    """

    shards = True

    def __init__(
        self,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        betas: tuple[Beta, Beta] = (0.9, 0.95),
        eps: Annotated[float, Gt(0)] = 1e-8,
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
        """torch.optim.AdamW, fused where the device has it."""
        return torch.optim.AdamW(
            decay_groups(infos, self.weight_decay, self.decay),
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            fused=device.type in _get_fused_kernels_supported_devices(),
        )
