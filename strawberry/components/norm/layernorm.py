"""Layer normalisation (Ba, Kiros and Hinton 2016, arXiv 1607.06450, eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import Norm, NormSite, wide


class LayerNorm(Norm):
    """`(x - mean) / sqrt(var + eps) * gain + bias` over the last dimension.

    Args:
        eps: added to the variance.
        bias: learn a bias for each feature, 0 at the start.
    """

    def __init__(self, site: NormSite, *, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.features = site.features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(site.features))
        self.bias = nn.Parameter(torch.zeros(site.features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., features)."""
        bias = None if self.bias is None else wide(self.bias)
        y = F.layer_norm(wide(x), (self.features,), wide(self.weight), bias, self.eps)
        return y.to(x.dtype)
