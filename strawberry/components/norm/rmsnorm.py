"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.model.contracts import Norm, wide


class RMSNorm(Norm):
    """`x / sqrt(mean(x^2) + eps) * gain` over the last dimension.

    The statistic is taken in float32 whatever the input's dtype.

    Args:
        eps: added to the mean square.
        gain: whether there is a learned gain for each feature, 1 at the start.
    """

    def __init__(self, features: int, *, eps: float = 1e-6, gain: bool = True) -> None:
        super().__init__()
        self.features = features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., features)."""
        gain = None if self.weight is None else wide(self.weight)
        return F.rms_norm(wide(x), (self.features,), gain, self.eps).to(x.dtype)


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps)` over the last dimension, without a gain; any leading shape."""
    return F.rms_norm(wide(x), (x.shape[-1],), None, eps).to(x.dtype)
