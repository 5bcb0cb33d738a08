"""AFT-simple: an attention-free mixer without position biases (arXiv 2105.14103, section 3).

`y[t] = sigmoid(q[t]) * sum_{s<=t} exp(k[s]) v[s] / sum_{s<=t} exp(k[s])`, for each channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strawberry.components.attention.aft import (
    AFT,
    cumsum,
    inside,
    weights_of,
)
from strawberry.contracts import State, Use, wide


class _RunningMean(torch.autograd.Function):
    """The exponentially weighted running mean of v under keys k, both (B, T, N) with N channels.

    Written as a function because autograd would save five wide tensors instead of three: dL/dv[s] =
        e^{k[s]} R[s], dL/dk[s] = e^{k[s]} (v[s] R[s] - Q[s]), R[s] = sum_{t>=s} dy[t] / den[t],
        Q[s] = sum_{t>=s} dy[t] y[t] / den[t]
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, k: Tensor, v: Tensor, eps: float, bounded: bool
    ) -> Tensor:
        weight = wide(k).exp() if bounded else weights_of(k)
        den = cumsum(weight).add_(eps)
        y = cumsum(weight * v).div_(den).to(v.dtype)
        ctx.save_for_backward(k, v, y, weight, den)
        ctx.bounded = bounded  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, dy: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        k, v, y, weight, den = ctx.saved_tensors  # type: ignore[attr-defined]
        share = dy / den
        weighted = cumsum(share * y, reverse=True)
        reverse = cumsum(share, reverse=True)
        dk = (reverse * v).sub_(weighted).mul_(weight)
        dv = reverse.mul_(weight)
        dk = dk.to(k.dtype) if ctx.bounded else inside(k, dk)  # type: ignore[attr-defined]
        return dk, dv.to(v.dtype), None, None


def running_mean(
    k: Tensor, v: Tensor, state: State | None = None, eps: float = 0.0, *, bounded: bool = False
) -> Tensor:
    """The running mean of v under keys k, (B, T, n_qkv); continues from `state` and updates it.

    `eps` is added to the denominator, which does not need it; `bounded` means that keys are within
    the bounds of float32. A state's sums are always in float64, because they may become long.
    """
    if state is None:
        return _RunningMean.apply(k, v, eps, bounded)  # type: ignore[no-untyped-call]
    weight = weights_of(k)
    num = state["num"][:, None] + cumsum(weight * v)
    den = state["den"][:, None] + cumsum(weight)
    state["num"].copy_(num[:, -1])
    state["den"].copy_(den[:, -1])
    return (num / (den + eps)).to(v.dtype)


class AFTSimple(AFT):
    """Attention without dot products: linear in T, with a decoding state of constant size.

    `y_t = sigmoid(q_t) * sum_s exp(k_s) v_s / sum_s exp(k_s)` over s <= t, for each channel.

    It has no positions: order comes only from the causal sums.
    """

    def mix(self, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """The running mean: (B, T, n_qkv)."""
        return running_mean(k, v, use.state, self.den_eps, bounded=self.bounded)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Numerator and denominator: 2 * n_qkv float64 numbers, for any length."""
        return self.sums(batch, device, "num", "den")
