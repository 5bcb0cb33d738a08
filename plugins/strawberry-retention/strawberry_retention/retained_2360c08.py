"""The Retention Mechanism as of the original project's version 2360c08. It leaks; see `layer.py`.

From the stream x that enters the layer, over all n = B T tokens at once:

    [o | a] = rms(x) W_oa^T, each half with rms again          (n, C) each
    Y = softmax(o^T a / sqrt(C)) over its rows                 (C, C): the leak
    T_0 = N(W_t Y^T), cut into qkv, glu and out

and then R times, for each of the three by itself: `W' = N(T * silu(W) + W)`, `T' = W`. N scales a
matrix to the deviation fan_in^-0.5. R attention-free mixers have W_0 to W_{R-1}, and one softmax
attention at the end has W_R.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Site, Use, wide
from strawberry_retention.layer import Matrices, RetentionLayer, fan_in_scaled, in_full


class Retained2360c08(RetentionLayer):
    """R attention-free mixers and a softmax attention; weights retained by the swap rule. It leaks.

    The first transform of the weights follows from all tokens of all sequences of the batch, so
    that outputs depend on later tokens and on other sequences. The layer normalises the stream
    before each mixer: its block has `norm: none`, and its FFN is a block of its own.
    """

    def __init__(
        self,
        site: Site,
        *,
        n_head: Annotated[int, Ge(1)] = 4,
        n_qkv: Annotated[int, Ge(1)] | None = None,
        steps: Annotated[int, Ge(1)] = 4,
        eps: Annotated[float, Gt(0)] = 1.1920929e-07,
    ) -> None:
        super().__init__(site, n_head=n_head, n_qkv=n_qkv, steps=steps, eps=eps)
        C = site.n_embd
        parts = {"o": C, "a": C}
        self.statistic = site.projection("statistic", 2 * C, C, bias=False, parts=parts)
        parts = {**dict.fromkeys(("q", "k", "v", "up", "gate"), self.n_qkv), "out": C}
        self.transform = site.projection(
            "transform", 5 * self.n_qkv + C, C, bias=False, parts=parts
        )

    def layer(self, x: Tensor, use: Use) -> Tensor:
        """The stream after all mixers: (B, T, C)."""
        W, T = self.own(use), in_full(x, self._first_transform, x, use)
        for _ in range(self.steps):
            x, _, _ = self.gated(x, self.attention_free(x, W), W)
            W, T = in_full(x, _swapped, W, T), W
        x, _, _ = self.gated(x, self.softmax(x, W, use), W)
        return x

    def _first_transform(self, x: Tensor, use: Use) -> Matrices:
        C = x.shape[-1]
        tokens = self.rms(wide(x)).flatten(0, 1)
        halves = F.linear(tokens, wide(self.statistic.matrix(use))).chunk(2, dim=-1)
        o, a = (self.rms(half) for half in halves)
        Y = (o.mT @ a * C**-0.5).softmax(-1)
        rows = wide(self.transform.matrix(use)) @ Y.mT
        qkv, glu, out = rows.split((3 * self.n_qkv, 2 * self.n_qkv, C))
        return _scaled(Matrices(qkv, glu.reshape(2 * C, self.n_qkv), out))


def _swapped(W: Matrices, T: Matrices) -> Matrices:
    return _scaled(Matrices(*(t * F.silu(w) + w for t, w in zip(T, W, strict=True))))


def _scaled(W: Matrices) -> Matrices:
    return Matrices(*(fan_in_scaled(part, part.shape[1]) for part in W))
