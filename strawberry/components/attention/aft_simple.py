"""AFT-simple, an attention-free mixer (Zhai et al. 2021, arXiv 2105.14103, section 3).

`y[t] = sigmoid(q[t]) * sum_{s<=t} exp(k[s]) v[s] / sum_{s<=t} exp(k[s])`, channel by channel.

The sums are taken in float64: every term of the denominator is positive, so nothing cancels, and
exp(k) neither overflows nor vanishes for keys within +-600. No maximum is subtracted, since one
taken over the sequence would let a large future key wipe out what came before it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from strawberry.components.attention.gated_head import GatedHead, PlainHead
from strawberry.components.norm.rmsnorm import unit_rms
from strawberry.errors import FieldError
from strawberry.model.contracts import Attention, Site, State, Use

KEY_LIMIT = 600.0
"""Keys are clamped to +-this: exp(600) * tokens * values stays far inside float64."""

KEY_LIMIT_FLOAT32 = 60.0
"""The same on devices without float64."""


def _limits(device: torch.device) -> tuple[torch.dtype, float]:
    """The dtype of the sums, and how large a key may be in it."""
    if device.type == "mps":
        return torch.float32, KEY_LIMIT_FLOAT32
    return torch.float64, KEY_LIMIT


def _reverse_cumsum(x: Tensor) -> Tensor:
    """Sums of what is at t and after it, over dimension 1."""
    return x.flip(1).cumsum(1).flip(1)


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
        dtype, limit = _limits(k.device)
        weight = k.to(dtype).clamp(-limit, limit).exp_()
        den = weight.cumsum(1).add_(eps)
        y = (weight * v).cumsum_(1).div_(den).to(v.dtype)
        ctx.save_for_backward(k, v, y, weight, den)
        return y

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, dy: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        k, v, y, weight, den = ctx.saved_tensors  # type: ignore[attr-defined]
        _, limit = _limits(k.device)
        share = dy / den
        weighted = _reverse_cumsum(share * y)
        reverse = _reverse_cumsum(share)
        dv = weight * reverse
        dk = dv * v - weight * weighted
        return dk.to(k.dtype).masked_fill(k.abs() > limit, 0.0), dv.to(v.dtype), None


def running_mean(k: Tensor, v: Tensor, state: State | None = None, eps: float = 0.0) -> Tensor:
    """The running mean of v under keys k, (B, T, N); continues from `state` and updates it.

    `eps` is added to the denominator, which does not need it.
    """
    if state is None:
        return _RunningMean.apply(k, v, eps)  # type: ignore[no-untyped-call]
    _, limit = _limits(k.device)
    weight = k.to(state["den"].dtype).clamp(-limit, limit).exp()
    num = state["num"][:, None] + (weight * v).cumsum(1)
    den = state["den"][:, None] + weight.cumsum(1)
    state["num"].copy_(num[:, -1])
    state["den"].copy_(den[:, -1])
    return (num / (den + eps)).to(v.dtype)


class AFTSimple(Attention):
    """Attention without dot products: linear in T, and a decoding state that does not grow.

    It has no positions of its own: order comes from the causal sums alone.

    Args:
        n_qkv: width of q, k and v; None takes `n_embd`.
        qk_norm: root-mean-square normalisation of q and k over the whole width, without a gain.
        qk_eps: added to the mean square in that normalisation.
        den_eps: added to the denominator, as the seed does with 1e-6; it pulls outputs to zero
            where all keys are very negative.
        head: `linear` is the paper's output projection; `swiglu` the seed's mini-FFN.
        n_ffn: hidden width of the mini-FFN; None takes `n_embd`.
    """

    def __init__(
        self,
        site: Site,
        *,
        n_qkv: int | None = None,
        qk_norm: bool = False,
        qk_eps: float = 1e-6,
        den_eps: float = 0.0,
        head: Literal["linear", "swiglu"] = "linear",
        n_ffn: int | None = None,
    ) -> None:
        super().__init__()
        self.n_qkv = n_qkv if n_qkv is not None else site.n_embd
        if self.n_qkv < 1:
            raise FieldError("n_qkv", f"{n_qkv} is not a positive width")
        if head == "linear" and n_ffn is not None:
            raise FieldError("n_ffn", "a linear head has no hidden width; write `head: swiglu`")
        self.qk_norm = qk_norm
        self.qk_eps = qk_eps
        self.den_eps = den_eps
        self.qkv = site.projection("qkv", 3 * self.n_qkv, site.n_embd)
        self.head = (
            GatedHead(site, self.n_qkv, n_ffn) if head == "swiglu" else PlainHead(site, self.n_qkv)
        )

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.qkv(x, use).chunk(3, dim=-1)
        if self.qk_norm:
            q, k = unit_rms(q, self.qk_eps), unit_rms(k, self.qk_eps)
        y = torch.sigmoid(q) * running_mean(k, v, use.state, self.den_eps)
        return self.head(y, use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Numerator and denominator: 2 * n_qkv float64 numbers, whatever the length."""
        shape = (batch, self.n_qkv)
        wide, _ = _limits(device)
        return {
            "num": torch.zeros(shape, device=device, dtype=wide),
            "den": torch.zeros(shape, device=device, dtype=wide),
        }
