"""Common parts of the attention-free mixers (Zhai et al. 2021, arXiv 2105.14103, eq. 2).

    y[t] = sigmoid(q[t]) * sum_{s<=t} e^{k[s] + w[t,s]} v[s] / sum_{s<=t} e^{k[s] + w[t,s]}

for each channel; the mixers differ in w. Shapes: k and v (B, T, N) with N = n_qkv.

Sums are in float64: every term of the denominator is positive, so nothing cancels, and exp neither
overflows nor vanishes for keys within +-600. Where a QK-norm bounds the keys, float32 is enough. No
maximum is subtracted: one over the whole sequence would let a large later key erase earlier ones.
"""

from __future__ import annotations

import abc
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from strawberry.components.attention.gated_head import GatedHead, PlainHead
from strawberry.components.norm.rmsnorm import unit_rms
from strawberry.contracts import Attention, Site, State, Use, exact
from strawberry.errors import FieldError
from strawberry.model.operators import operator

KEY_LIMIT = 600.0
"""Bound of keys: exp(600) * tokens * values stays well within float64."""

KEY_LIMIT_FLOAT32 = 60.0
"""The same on devices without float64."""

CHUNK = 16
"""Number of tokens that `cumsum` sums in one product."""

BOUND = 40.0
"""Bound below which keys are summed in float32, which has room for exp(40) of them."""

BIAS_LIMIT = 20.0
"""Bound of position biases, which leaves the same room in the sums."""


def limits(device: torch.device) -> tuple[torch.dtype, float]:
    """The dtype of the sums, and the bound of keys in it."""
    dtype = exact(device)
    return dtype, KEY_LIMIT if dtype == torch.float64 else KEY_LIMIT_FLOAT32


def weights_of(k: Tensor) -> Tensor:
    """`exp(k)`, clamped, in the dtype of the sums."""
    dtype, limit = limits(k.device)
    return k.clamp(-limit, limit).to(dtype).exp_()


def inside(k: Tensor, dk: Tensor) -> Tensor:
    """A key's gradient, which is zero where the key was clamped."""
    _, limit = limits(k.device)
    inner: Tensor = torch.ops.aten.hardtanh_backward(dk.to(k.dtype), k, -limit, limit)
    return inner


def cumsum(x: Tensor, *, reverse: bool = False) -> Tensor:
    """Cumulative sums, forward or backward, over dimension 1 of (B, T, N).

    torch's own loops over channels on a CPU. There this uses products with a triangle of ones: over
    chunks of the sequence, and over their sums. No sum includes other terms.
    """
    if not x.is_cpu or x.shape[1] <= CHUNK:
        return x.flip(1).cumsum(1).flip(1) if reverse else x.cumsum(1)
    sums: Tensor = _chunked_cumsum(x, reverse)
    return sums


@operator(fake=lambda x, _: x.new_empty(x.shape))
def _chunked_cumsum(x: Tensor, reverse: bool) -> Tensor:
    """An operator, so that its products don't count as the model's FLOPs."""
    B, T, N = x.shape
    ones = x.new_ones(CHUNK, CHUNK)
    whole = F.pad(x, (0, 0, 0, -T % CHUNK)) if T % CHUNK else x
    parts = torch.unflatten(whole, 1, (-1, CHUNK))
    if reverse:
        sums = ones.triu() @ parts
        sums[:, :-1] += cumsum(sums[:, :, 0], reverse=True)[:, 1:, None]
    else:
        sums = ones.tril() @ parts
        sums[:, 1:] += cumsum(sums[:, :, -1])[:, :-1, None]
    return sums.view(B, -1, N)[:, :T].contiguous()


def _keep_direction(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:  # noqa: ARG001
    ctx.reverse = inputs[1]


def _turned_back(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return cumsum(grad, reverse=not ctx.reverse), None


torch.library.register_autograd(_chunked_cumsum, _turned_back, setup_context=_keep_direction)


Width = Annotated[int, Ge(1)]
Eps = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Head = Literal["linear", "swiglu"]


class AFT(Attention):
    """An attention-free mixer: projections, gate and output head; subclasses define `mix`.

    Subclasses with keys narrower than values pass the keys' width as `keys`.

    Args:
        n_qkv: width of q, k and v; null takes `n_embd`.
        qk_norm: root-mean-square normalisation of q and k over the whole width, without a gain.
        qk_eps: added to the mean square in that normalisation.
        den_eps: added to the denominator, as the original does with 1e-6; it moves outputs to zero
            where all keys are very negative.
        head: `linear` is the paper's output projection; `swiglu` is the original's mini-FFN.
        n_ffn: hidden width of the mini-FFN; null takes `n_embd`.
    """

    def __init__(
        self,
        site: Site,
        keys: int | None = None,
        *,
        n_qkv: Width | None = None,
        qk_norm: bool = False,
        qk_eps: Eps = 1e-6,
        den_eps: NonNegative = 0.0,
        head: Head = "linear",
        n_ffn: Width | None = None,
    ) -> None:
        super().__init__()
        self.n_qkv = n_qkv if n_qkv is not None else site.n_embd
        if head == "linear" and n_ffn is not None:
            raise FieldError("n_ffn", "a linear head has no hidden width; write `head: swiglu`")
        self.qk_norm = qk_norm
        self.qk_eps = qk_eps
        # A vector of root mean square 1 has no number beyond the root of its length.
        self.bounded = qk_norm and (keys or self.n_qkv) ** 0.5 <= BOUND
        self.den_eps = den_eps
        self.widths = [self.n_qkv, keys if keys is not None else self.n_qkv, self.n_qkv]
        parts = dict(zip("qkv", self.widths, strict=True))
        self.qkv = site.projection("qkv", sum(self.widths), site.n_embd, parts=parts)
        self.head = (
            GatedHead(site, self.n_qkv, n_ffn) if head == "swiglu" else PlainHead(site, self.n_qkv)
        )

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = torch.split(self.qkv(x, use), self.widths, dim=-1)
        if self.qk_norm:
            q, k = unit_rms(q, self.qk_eps), unit_rms(k, self.qk_eps)
        return self.head(torch.sigmoid(q) * self.mix(k, v, use), use)

    @abc.abstractmethod
    def mix(self, k: Tensor, v: Tensor, use: Use) -> Tensor:
        """The weighted means of v: (B, T, N); continues from `use.state` and updates it."""

    def sums(self, batch: int, device: torch.device, *names: str) -> State:
        """State for sums of each channel, (B, N), starting at 0."""
        dtype, _ = limits(device)
        return {name: torch.zeros(batch, self.n_qkv, device=device, dtype=dtype) for name in names}
