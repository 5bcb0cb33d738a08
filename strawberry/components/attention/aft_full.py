"""AFT-full: attention-free, with a learned bias for each pair of positions (2105.14103, eq. 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strawberry.components.attention.aft import BIAS_LIMIT, inside, weights_of
from strawberry.components.attention.aft_local import TableAFT
from strawberry.contracts import Site, State, Use


class _PairMean(torch.autograd.Function):
    """(B, T, N) from k and v (B, S, N): N channels, and the last T of S positions are the queries.

    The biases are `left` (T, S), or `left @ right^T` with left (T, R) and right (S, R), of rank R.
    It takes two products with their exponentials, one for the numerator and one for the
    denominator. No tensor of size T * S is saved for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        k: Tensor,
        v: Tensor,
        left: Tensor,
        right: Tensor | None,
        eps: float,
    ) -> Tensor:
        _, pairs, weight = _terms(k, left, right)
        den = (pairs @ weight).add_(eps)
        y = (pairs @ (weight * v)).div_(den).to(v.dtype)
        ctx.save_for_backward(k, v, left, y, den, *([] if right is None else [right]))
        return y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        k, v, left, y, den, *rest = ctx.saved_tensors  # type: ignore[attr-defined]
        right = rest[0] if rest else None
        w, pairs, weight = _terms(k, left, right)
        share = dy / den
        loss = share * y
        dv = weight * (pairs.mT @ share)
        dk = dv * v - weight * (pairs.mT @ loss)
        dpairs = _outer(share, weight * v) - _outer(loss, weight)
        # Only what a query sees: ahead of it the product may overflow, and 0 times that is no 0.
        dpairs = dpairs.tril(w.shape[1] - w.shape[0])
        dw = (dpairs * pairs).masked_fill(w.abs() > BIAS_LIMIT, 0.0)
        if right is None:
            return inside(k, dk), dv.to(v.dtype), dw.to(left.dtype), None, None
        dleft, dright = dw @ right.to(dw.dtype), dw.mT @ left.to(dw.dtype)
        gradients = (dleft.to(left.dtype), dright.to(right.dtype))
        return inside(k, dk), dv.to(v.dtype), *gradients, None


def _terms(k: Tensor, left: Tensor, right: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The biases w; `exp(w)` where the key is not after the query, else 0; and `exp(k)`."""
    weight = weights_of(k)
    w = left.to(weight.dtype)
    if right is not None:
        w = w @ right.to(weight.dtype).mT
    T, S = w.shape
    return w, weights_of(w.clamp(-BIAS_LIMIT, BIAS_LIMIT)).tril(S - T), weight


def _outer(x: Tensor, y: Tensor) -> Tensor:
    """`sum_bn x[b, t, n] y[b, s, n]`: (T, S)."""
    return x.transpose(0, 1).flatten(1) @ y.transpose(0, 1).flatten(1).mT


class AFTFull(TableAFT):
    """`w[t, s]` is learned for each pair; work is quadratic in T, training memory linear.

    `y_t = sigmoid(q_t) * sum_s exp(k_s + w_{t,s}) v_s / sum_s exp(k_s + w_{t,s})` over s <= t,
    for each channel.

    Positions end at `block_size`. There is no finite state: the cache stores all keys and values.
    """

    def __init__(self, site: Site, **shared: Any) -> None:
        super().__init__(site, site.block_size, **shared)

    def mix(self, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """The mean with a bias for each pair: (B, T, n_qkv)."""
        if use.state is not None:
            end = use.offset + k.shape[1]
            use.state["k"][:, use.offset : end] = k
            use.state["v"][:, use.offset : end] = v
            k, v = use.state["k"][:, :end], use.state["v"][:, :end]
        rows = slice(use.offset, k.shape[1])
        if self.biases is not None:
            left, right = self.biases[rows, : k.shape[1]], None
        else:
            assert self.queries is not None
            assert self.keys is not None
            left, right = self.queries[rows], self.keys[: k.shape[1]]
        return _PairMean.apply(k, v, left, right, self.den_eps)  # type: ignore[no-untyped-call]

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values: 2 * n_qkv numbers a token."""
        shape = (batch, length, self.n_qkv)
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in "kv"}
