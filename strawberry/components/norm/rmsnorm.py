"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from strawberry.contracts import Norm, NormSite, wide


class RMSNorm(Norm):
    """`x / sqrt(mean(x^2) + eps) * gain` over the last dimension.

    The statistic is computed in float32 for any input dtype.

    Args:
        eps: added to the mean square.
        gain: learn a gain for each feature, 1 at the start.
    """

    def __init__(self, site: NormSite, *, eps: float = 1e-6, gain: bool = True) -> None:
        super().__init__()
        self.features = site.features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(site.features)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., features)."""
        return _in_its_dtype(x, self.weight, self.eps)


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps)` over the last dimension, without a gain; any leading shape."""
    return _in_its_dtype(x, None, eps)


def _in_its_dtype(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """`rms_norm` in float32, returned in the input's dtype."""
    y = rms_norm(wide(x), None if gain is None else wide(gain), eps)
    return y if y.dtype is x.dtype else y.to(x.dtype)


def rms_norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """As torch's own, with fewer passes on a CPU, where torch has no kernel for it.

    Also used on meta, so that the saved bytes are those of a fused kernel, not of its parts.
    """
    if torch.compiler.is_compiling() or not (x.is_cpu or x.is_meta):
        return F.rms_norm(x, (x.shape[-1],), gain, eps)
    if torch.is_grad_enabled() and (x.requires_grad or (gain is not None and gain.requires_grad)):
        y: Tensor = _RMSNorm.apply(x, gain, eps)  # type: ignore[no-untyped-call]
        return y
    return _normed(x, gain, eps)[0]


def _normed(x: Tensor, gain: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The result, and the inverse of the root mean square, (..., 1)."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    mean = torch.addcmul(size.new_full((), eps), size, size, value=1 / x.shape[-1])
    inverse = mean.rsqrt_()
    y = x * inverse
    return (y if gain is None else y.mul_(gain)), inverse


class _RMSNorm(torch.autograd.Function):
    """(..., features) and a gain (features,) to the same shape.

    With n = x / rms and h = grad * gain, the gradient by x is `(h - n mean(h n)) / rms`.

    Without a gain n is the result itself. With one, the backward kernel of layer norm, called with
    a mean of zero, gives the gradient minus `mean(h) / rms`, in one pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
        y, inverse = _normed(x, gain, eps)
        ctx.save_for_backward(y if gain is None else x, gain, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, gain, inverse = ctx.saved_tensors
        features = x.shape[-1]
        if gain is None:
            total = (grad * x).sum(-1, keepdim=True)
            return grad.addcmul(x, total, value=-1 / features).mul_(inverse), None, None
        grad, zero = grad.contiguous(), torch.zeros_like(inverse)
        by_x, by_gain, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, (features,), zero, inverse, gain, None, [True, True, False]
        )
        by_x.addcmul_((grad @ gain)[..., None], inverse, value=1 / features)
        return by_x, by_gain, None
