"""AFT-simple: an attention-free mixer without position biases (arXiv 2105.14103, section 3).

`y[t] = sigmoid(q[t]) * sum_{s<=t} exp(k[s]) v[s] / sum_{s<=t} exp(k[s])`, channel by channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strawberry.components.attention.aft import (
    AFT,
    inside,
    reverse_cumsum,
    weights_of,
)
from strawberry.model.contracts import State, Use


class _RunningMean(torch.autograd.Function):
    """The exponentially weighted running mean of v under keys k, both (B, T, N).

    Written out because autograd would keep five float64 tensors where three are enough:
        dL/dv[s] = e^{k[s]} R[s],   dL/dk[s] = e^{k[s]} (v[s] R[s] - Q[s]),
        R[s] = sum_{t>=s} dy[t] / den[t],   Q[s] = sum_{t>=s} dy[t] y[t] / den[t]
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, k: Tensor, v: Tensor, eps: float
    ) -> Tensor:
        weight = weights_of(k)
        den = weight.cumsum(1).add_(eps)
        y = (weight * v).cumsum_(1).div_(den).to(v.dtype)
        ctx.save_for_backward(k, v, y, weight, den)
        return y

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, dy: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        k, v, y, weight, den = ctx.saved_tensors  # type: ignore[attr-defined]
        share = dy / den
        weighted = reverse_cumsum(share * y)
        reverse = reverse_cumsum(share)
        dv = weight * reverse
        dk = dv * v - weight * weighted
        return inside(k, dk), dv.to(v.dtype), None


def running_mean(k: Tensor, v: Tensor, state: State | None = None, eps: float = 0.0) -> Tensor:
    """The running mean of v under keys k, (B, T, N); continues from `state` and updates it.

    `eps` is added to the denominator, which does not need it.
    """
    if state is None:
        return _RunningMean.apply(k, v, eps)  # type: ignore[no-untyped-call]
    weight = weights_of(k)
    num = state["num"][:, None] + (weight * v).cumsum(1)
    den = state["den"][:, None] + weight.cumsum(1)
    state["num"].copy_(num[:, -1])
    state["den"].copy_(den[:, -1])
    return (num / (den + eps)).to(v.dtype)


class AFTSimple(AFT):
    """Attention without dot products: linear in T, and a decoding state that does not grow.

    It has no positions of its own: order comes from the causal sums alone.
    """

    def mix(self, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """The running mean: (B, T, N)."""
        return running_mean(k, v, use.state, self.den_eps)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Numerator and denominator: 2 * n_qkv float64 numbers, whatever the length."""
        return self.sums(batch, device, "num", "den")
