"""Dynamic tanh, a replacement of normalisation (Zhu et al. 2025, arXiv 2503.10622, eq. 3)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from strawberry.contracts import Norm, NormSite


class DyT(Norm):
    """`gain * tanh(alpha x) + bias`, elementwise, without a statistic.

    Args:
        alpha: initial value of the learned scale, one number for the whole width.
        bias: learn a bias for each feature, 0 at the start.
    """

    def __init__(
        self, site: NormSite, *, alpha: Annotated[float, Gt(0)] = 0.5, bias: bool = True
    ) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(site.features))
        self.bias = nn.Parameter(torch.zeros(site.features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., features)."""
        y = torch.tanh(self.alpha.to(x.dtype) * x) * self.weight.to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)
