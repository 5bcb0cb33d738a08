"""Means with learned weights for the last few keys: common to AFT-local and AFT-conv.

With a window of S offsets j = t - s and factors W_j[t] = exp(w[t, t-j]):

    den[t] = sum_{s <= t-S} e^{k[s]} + sum_{j<S} W_j[t] e^{k[t-j]}

and the numerator likewise with v. All terms are positive. (The usual form, all keys plus `W - 1`
times the near ones, subtracts large numbers from each other.) Work is O(T S N), memory O(T N): the
backward pass recomputes the window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strawberry.components.attention.aft import BIAS_LIMIT, cumsum, inside, weights_of
from strawberry.contracts import State, wide


def terms(k: Tensor, w: Tensor, bounded: bool = False) -> tuple[Tensor, Tensor]:
    """`exp(w)` with w clamped, and `exp(k)`: in float32 for bounded keys, else in the sums' dtype.

    For bounded keys and clamped biases, the largest term is exp(60) and the smallest exp(-60).
    """
    w = w.clamp(-BIAS_LIMIT, BIAS_LIMIT)
    if bounded:
        return wide(w).exp(), wide(k).exp()
    return weights_of(w), weights_of(k)


class _BandMean(torch.autograd.Function):
    """(B, T, N) from k and v (B, T, N) and w (S, T, 1) or (S, 1, N), with N channels."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        k: Tensor,
        v: Tensor,
        w: Tensor,
        eps: float,
        bounded: bool,
    ) -> Tensor:
        near, weight = terms(k, w, bounded)
        value = weight * v
        den = _window(weight, near).add_(eps)
        y = _window(value, near).div_(den).to(v.dtype)
        ctx.save_for_backward(k, v, w, y, den)
        ctx.bounded = bounded  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, dy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        k, v, w, y, den = ctx.saved_tensors  # type: ignore[attr-defined]
        bounded = ctx.bounded  # type: ignore[attr-defined]
        near, weight = terms(k, w, bounded)
        value = weight * v
        share = dy / den  # dL/dnum
        loss = share * y  # -dL/dden
        to_value, to_weight = _window_back(share, near), _window_back(loss, near)
        dv = weight * to_value
        dk = (dv * v).addcmul_(weight, to_weight, value=-1)
        dw = torch.zeros_like(near)
        T = k.shape[1]
        for j in range(min(len(near), T)):
            each = share[:, j:] * value[:, : T - j]
            each.addcmul_(loss[:, j:], weight[:, : T - j], value=-1)
            if near.shape[1] == 1:  # by channel
                dw[j, 0] = each.sum((0, 1))
            else:  # by position
                dw[j, j:, 0] = each.sum((0, 2))
        dw = (dw * near).to(w.dtype).masked_fill(w.abs() > BIAS_LIMIT, 0.0)
        dk = dk.to(k.dtype) if bounded else inside(k, dk)
        return dk, dv.to(v.dtype), dw, None, None


def _window(x: Tensor, near: Tensor) -> Tensor:
    """`sum_{j<S} W_j[t] x[t-j]`, and the sum of everything further back."""
    T, S = x.shape[1], len(near)
    total = torch.zeros_like(x)
    if S < T:
        total[:, S:] = cumsum(x)[:, : T - S]
    for j in range(min(S, T)):
        factor = near[j] if near.shape[1] == 1 else near[j, j:]
        total[:, j:].addcmul_(x[:, : T - j], factor)
    return total


def _window_back(x: Tensor, near: Tensor) -> Tensor:
    """The transpose of `_window`: the contribution of each s to all t that see it."""
    T, S = x.shape[1], len(near)
    total = torch.zeros_like(x)
    if S < T:
        total[:, : T - S] = cumsum(x, reverse=True)[:, S:]
    for j in range(min(S, T)):
        factor = near[j] if near.shape[1] == 1 else near[j, j:]
        total[:, : T - j].addcmul_(x[:, j:], factor)
    return total


def band_mean(
    k: Tensor, v: Tensor, w: Tensor, state: State | None, eps: float, *, bounded: bool = False
) -> Tensor:
    """The mean of v under k and w, (B, T, N); continues from `state` and updates it.

    Args:
        k: keys (B, T, N).
        v: values (B, T, N).
        w: biases by offset: (S, T, 1), one for each of these tokens, or (S, 1, N).
        state: the result of `band_state`, or None.
        eps: added to the denominator.
        bounded: True if keys are within the bounds of float32.
    """
    if state is None:
        return _BandMean.apply(k, v, w, eps, bounded)  # type: ignore[no-untyped-call]
    near, weight = terms(k, w)
    T, S = k.shape[1], len(near)
    sums = []
    for total, recent, new in (("num", "values", weight * v), ("den", "weights", weight)):
        # The window's S - 1 tokens before these, then these; token t is at S - 1 + t.
        line = torch.cat((state[recent], new), dim=1)
        behind = torch.cat((torch.zeros_like(line[:, :1]), line.cumsum(1)), dim=1)
        mean = state[total][:, None] + behind[:, :T]
        for j in range(S):
            mean = mean + near[j] * line[:, S - 1 - j : S - 1 - j + T]
        sums.append(mean)
        state[total].add_(behind[:, T])
        state[recent].copy_(line[:, T:])
    num, den = sums
    return (num / (den + eps)).to(v.dtype)


def band_state(sums: State, window: int) -> State:
    """`num` and `den` of terms that left the window, and the window's terms without the oldest."""
    shape = (sums["num"].shape[0], window - 1, sums["num"].shape[1])
    recent = sums["num"].new_zeros(shape)
    return {**sums, "values": recent, "weights": recent.clone()}
