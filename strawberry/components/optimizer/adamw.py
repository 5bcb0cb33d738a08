"""AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2), with torch's fused kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from strawberry.contracts import Beta, DecayingSource, OptimizerSite, ParameterInfo


class AdamW(DecayingSource):
    """Adam with decoupled weight decay; takes every parameter.

    `m <- b_1 m + (1 - b_1) g`, `v <- b_2 v + (1 - b_2) g^2`; then, with both divided by 1 -
    b^t, `w <- w - lr (m / (sqrt(v) + eps) + decay w)`.

    Args:
        betas: decay of the running mean and of the running mean square.
        eps: added to the root of the mean square.
    """

    shards = True

    def __init__(
        self,
        site: OptimizerSite,
        *,
        betas: tuple[Beta, Beta] = (0.9, 0.95),
        eps: Annotated[float, Gt(0)] = 1e-8,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.betas = betas
        self.eps = eps

    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """torch.optim.AdamW, fused where the device has it."""
        return torch.optim.AdamW(
            self.groups(infos),
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            fused=device.type in _get_fused_kernels_supported_devices(),
        )
