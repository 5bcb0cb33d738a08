"""Common parts of both historic layers: three matrices that serve several mixers in a row.

With C = `n_embd` and N = `n_qkv`, one set of matrices W is `qkv` (3N, C), `glu` (2C, N) and `out`
(C, C). A mixer with it is, for the stream x (B, T, C):

    m = mix(rms(x) qkv^T);  [u | v] = m glu^T;  x <- x + (u * silu(v)) out^T

with `mix` attention-free (causal) or softmax attention (causal). The next W is derived from x, and
that is the leak: the statistic is over all tokens and all sequences of the batch.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Attention, Site, Use, wide, without_autocast
from strawberry.errors import FieldError

STD_EPS = 1e-8
AFT_EPS = 1e-6


class Matrices(NamedTuple):
    """One set of matrices: qkv (3N, C), glu (2C, N), out (C, C)."""

    qkv: Tensor
    glu: Tensor
    out: Tensor


class RetentionLayer(Attention):
    """A historic layer, whole: attention-free mixers and softmax attention in a row. It leaks.

    Its weights follow from all tokens of all sequences of the batch, so that outputs depend on
    later tokens and on other sequences. It normalises the stream before each of its mixers and adds
    what they return to it, so its block has `norm: none`, and an FFN is a block of its own.

    Args:
        n_head: heads of the softmax attention.
        n_qkv: width N of queries, keys and values; null takes 4 `n_embd`.
        steps: how often the weights are updated, R; R + 1 mixers are in the layer.
        eps: added to the mean square wherever rows are normalised.
    """

    causal = False
    batch_independent = False
    cacheable = False
    routable = False
    honours = frozenset({"rotary"})

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        n_qkv: Annotated[int, Ge(1)] | None = None,
        steps: Annotated[int, Ge(1)] = 4,
        eps: Annotated[float, Gt(0)] = 1.1920929e-07,
    ) -> None:
        super().__init__()
        width = n_qkv if n_qkv is not None else 4 * site.n_embd
        if width % n_head:
            raise FieldError("n_head", f"width {width} can't be split into {n_head} heads")
        if "rotary" in site.positional.places:
            try:
                site.positional.check(n_head, width // n_head)
            except ValueError as error:
                raise FieldError("n_head", str(error)) from error
        self.n_head = n_head
        self.n_qkv = width
        self.steps = steps
        self.eps = eps
        self.dropout = site.dropout
        C = site.n_embd
        # As the first mixer has them: a softmax attention later on reads its heads' rows otherwise.
        parts = {"q": width, "k": width, "v": width}
        self.qkv = site.projection("qkv", 3 * width, C, bias=False, parts=parts)
        parts = {"up": C, "gate": C}
        self.glu = site.projection("glu", 2 * C, width, bias=False, parts=parts)
        self.out = site.projection("out", C, C, output=True, bias=False)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C): what the mixers add to the stream."""
        return self.layer(x, use) - x

    @abc.abstractmethod
    def layer(self, x: Tensor, use: Use) -> Tensor:
        """The stream after all mixers: (B, T, C)."""

    def own(self, use: Use) -> Matrices:
        """The matrices that the first mixer has, in float32 at least."""
        parts = (self.qkv, self.glu, self.out)
        return Matrices(*(wide(part.matrix(use)) for part in parts))

    def attention_free(self, x: Tensor, W: Matrices) -> Tensor:
        """(B, T, C) -> m (B, T, N): `sigmoid(q) * sum(exp(k) v) / sum(exp(k))` up to each token."""
        q, k, v = wide(self._project(x, W)).chunk(3, dim=-1)
        weight = self.rms(k).exp()
        mean = (weight * v).cumsum(1) / (weight.cumsum(1) + AFT_EPS)
        return (torch.sigmoid(self.rms(q)) * mean).to(x.dtype)

    def softmax(self, x: Tensor, W: Matrices, use: Use) -> Tensor:
        """(B, T, C) -> m (B, T, N): causal attention; rows of W are `[q_h | k_h | v_h]`."""
        B, T, _ = x.shape
        heads = self._project(x, W).view(B, T, self.n_head, -1).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=-1)
        # A rotation keeps the mean square, so this is the norm after the rotation too.
        y = F.scaled_dot_product_attention(
            self.rms(use.rotate(q)),
            self.rms(use.rotate(k)),
            v,
            is_causal=True,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return y.transpose(1, 2).reshape(B, T, -1)

    def gated(self, x: Tensor, mixed: Tensor, W: Matrices) -> tuple[Tensor, Tensor, Tensor]:
        """The stream with a mixer's result, and the two halves u and v of its hidden values."""
        u, v = F.linear(mixed, W.glu.to(mixed.dtype)).chunk(2, dim=-1)
        return x + F.linear(u * F.silu(v), W.out.to(u.dtype)).to(x.dtype), u, v

    def rms(self, x: Tensor) -> Tensor:
        """`x / sqrt(mean(x^2) + eps)` over the last dimension."""
        return F.rms_norm(wide(x), (x.shape[-1],), None, self.eps).to(x.dtype)

    def _project(self, x: Tensor, W: Matrices) -> Tensor:
        return F.linear(self.rms(x), W.qkv.to(x.dtype))


def fan_in_scaled(matrix: Tensor, fan_in: int) -> Tensor:
    """N_n: the deviation over all entries becomes n^-0.5; their mean stays in."""
    return matrix * (fan_in**-0.5 / (matrix.std() + STD_EPS))


def in_full(x: Tensor, function: Callable[..., Matrices], *given: Any) -> Matrices:
    """`function(*given)` without autocast on the device of x: half precision is for tokens."""
    with without_autocast(x.device):
        return function(*given)
