"""The Retention Mechanism as of the original project's version fb0a8c9. It leaks; see `layer.py`.

Each mixer's hidden halves u and v (B, T, C) give the weights of the next, V being (C, C) and
learned:

    A = rms(mean over B of u^T v) over its rows                (C, C): the leak
    W' = |tau| N(W + silu(W A) V^T)

for qkv and out as they are, and for glu as the transpose of what it is in rows of 2N, (2N, C). N
scales a matrix to the deviation n^-0.5, with n its fan-in; but for out, whose fan-in is C, n is N
in the author's code, and so it is here. Each of the three has its own tau. Every fourth mixer is a
softmax attention, and so is the one after the last update; the others are attention-free.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Site, Use, drawn, wide
from strawberry_retention.layer import Matrices, RetentionLayer, fan_in_scaled, in_full

PERIOD = 4


class RetainedFb0a8c9(RetentionLayer):
    """Mixers whose hidden values update the weights of the next. It leaks.

    The updates follow from all tokens of all sequences of the batch, so that outputs depend on
    later tokens and on other sequences. The layer normalises the stream before each mixer: its
    block has `norm: none`. It needs no FFN.
    """

    parameter_kinds = {"tau": "vector"}

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
        self.update = site.projection("update", site.n_embd, site.n_embd, bias=False)
        self.tau = drawn(3, std=1.0, uniform=True)

    def layer(self, x: Tensor, use: Use) -> Tensor:
        """The stream after all mixers: (B, T, C)."""
        W, V = self.own(use), wide(self.update.matrix(use))
        for step in range(self.steps):
            full = (step + 1) % PERIOD == 0
            mixed = self.softmax(x, W, use) if full else self.attention_free(x, W)
            x, u, v = self.gated(x, mixed, W)
            W = in_full(x, self._updated, W, V, u, v)
        x, _, _ = self.gated(x, self.softmax(x, W, use), W)
        return x

    def _updated(self, W: Matrices, V: Tensor, u: Tensor, v: Tensor) -> Matrices:
        A = self.rms((wide(u).mT @ wide(v)).mean(0))
        N, C = self.n_qkv, len(W.out)

        def change(rows: Tensor) -> Tensor:
            return F.silu(rows @ A) @ V.mT

        qkv = fan_in_scaled(W.qkv + change(W.qkv), C)
        glu = fan_in_scaled(W.glu + change(W.glu.reshape(C, 2 * N).mT).mT.reshape(2 * C, N), N)
        out = fan_in_scaled(W.out + change(W.out), N)
        return Matrices(
            *(t * w for t, w in zip(wide(self.tau).abs(), (qkv, glu, out), strict=True))
        )
