"""AFT-full: attention-free, with a learned bias for each pair of positions (2105.14103, eq. 2)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from strawberry.components.attention.aft import AFT, BIAS_LIMIT, Head, Width, inside, weights_of
from strawberry.components.attention.aft_local import STD
from strawberry.model.contracts import Site, State, Use, draw


class _PairMean(torch.autograd.Function):
    """(B, T, N) from k and v (B, S, N) and w (T, S), of which the last T of S are the queries.

    Two products with `exp(w)`, one for the numerator and one for the denominator; what is kept for
    the backward pass does not grow with T * S * N.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, k: Tensor, v: Tensor, w: Tensor, eps: float
    ) -> Tensor:
        pairs, weight = _pairs(w), weights_of(k)
        den = (pairs @ weight).add_(eps)
        y = (pairs @ (weight * v)).div_(den).to(v.dtype)
        ctx.save_for_backward(k, v, w, y, den)
        return y

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, dy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        k, v, w, y, den = ctx.saved_tensors  # type: ignore[attr-defined]
        pairs, weight = _pairs(w), weights_of(k)
        share = dy / den
        loss = share * y
        dv = weight * (pairs.mT @ share)
        dk = dv * v - weight * (pairs.mT @ loss)
        dpairs = (share @ (weight * v).mT).sum(0) - (loss @ weight.mT).sum(0)
        dw = (dpairs * pairs).to(w.dtype).masked_fill(w.abs() > BIAS_LIMIT, 0.0)
        return inside(k, dk), dv.to(v.dtype), dw, None


def _pairs(w: Tensor) -> Tensor:
    """`exp(w)` where the key is not ahead of the query, else 0: (T, S)."""
    T, S = w.shape
    return weights_of(w.clamp(-BIAS_LIMIT, BIAS_LIMIT)).tril(S - T)


class AFTFull(AFT):
    """`w[t, s]` is learned for each pair; work is quadratic in T, memory for training linear.

    Positions end at `block_size`. There is no finite state: the cache keeps all keys and values.

    Args:
        n_qkv: width of q, k and v; None takes `n_embd`.
        rank: write w as u[t] . z[s] with vectors of this width; None learns each pair's bias.
        qk_norm: root-mean-square normalisation of q and k over the whole width, without a gain.
        qk_eps: added to the mean square in that normalisation.
        den_eps: added to the denominator.
        head: `linear` is the paper's output projection; `swiglu` the seed's mini-FFN.
        n_ffn: hidden width of the mini-FFN; None takes `n_embd`.
    """

    routable: ClassVar[bool] = False
    parameter_kinds: ClassVar[dict[str, str]] = {
        "biases": "embedding",
        "queries": "embedding",
        "keys": "embedding",
    }

    def __init__(
        self,
        site: Site,
        *,
        n_qkv: Width | None = None,
        rank: Annotated[int, Ge(1)] | None = None,
        qk_norm: bool = False,
        qk_eps: float = 1e-6,
        den_eps: float = 0.0,
        head: Head = "linear",
        n_ffn: Width | None = None,
    ) -> None:
        super().__init__(
            site,
            n_qkv=n_qkv,
            qk_norm=qk_norm,
            qk_eps=qk_eps,
            den_eps=den_eps,
            head=head,
            n_ffn=n_ffn,
        )
        length = site.block_size
        self.block_size = length
        sides = {"biases": (length, length)}
        if rank is not None:
            sides = {"queries": (length, rank), "keys": (length, rank)}
        self.biases: nn.Parameter | None = None
        self.queries: nn.Parameter | None = None
        self.keys: nn.Parameter | None = None
        for name, side in sides.items():
            table = nn.Parameter(torch.empty(side))
            draw(table, STD, uniform=False)
            setattr(self, name, table)

    def limit(self) -> int:
        """`block_size`."""
        return self.block_size

    def mix(self, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """The mean with a bias for each pair: (B, T, N)."""
        if use.state is not None:
            end = use.offset + k.shape[1]
            use.state["k"][:, use.offset : end] = k
            use.state["v"][:, use.offset : end] = v
            k, v = use.state["k"][:, :end], use.state["v"][:, :end]
        w = self._biases(use.positions, k.shape[1])
        return _PairMean.apply(k, v, w, self.den_eps)  # type: ignore[no-untyped-call]

    def _biases(self, positions: Tensor, n_keys: int) -> Tensor:
        """(T, S)."""
        if self.biases is not None:
            return self.biases[positions, :n_keys]
        assert self.queries is not None
        assert self.keys is not None
        return self.queries[positions] @ self.keys[:n_keys].mT

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values: 2 * n_qkv numbers a token."""
        shape = (batch, length, self.n_qkv)
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in "kv"}
