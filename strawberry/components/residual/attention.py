"""Attention residuals (Kimi Team 2026, arXiv 2603.15031, eq. 5 and 6)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from strawberry.components.residual.sum import Placement, Scale, SumJoin, SumResidual
from strawberry.contracts import Join, JoinSite, ResidualSite, Stream, Use, normed, wide

EPS = torch.finfo(torch.float32).eps
"""Added to the mean square of what is mixed: enough for a row of zeros."""


class PartOutput(NamedTuple):
    """What a part wrote, (B, T, C), and the inverse of its root mean square, (B, T, 1)."""

    value: Tensor
    inverse_rms: Tensor


class MixedStream(NamedTuple):
    """What flows from block to block.

    Attributes:
        x: what the next part reads, (B, T, C).
        history: the embeddings and what each part has written since.
    """

    x: Tensor
    history: tuple[PartOutput, ...]


class AttentionResidual(SumResidual):
    """What a part reads is a learned mean of all that was written before it.

    `x = sum_i a_i v_i` with `a = softmax_i(w . v_i / rms(v_i))`, over the embeddings v_0 and the
    outputs v_1... of the parts so far; w starts at zero, which is the plain mean. Under recursion
    the history grows with each use, and the uses of a block share its w.

    Args:
        placement: where a block's parts are normalised, as in `sum`.
        scale: what a part's output is multiplied by before it is written, as in `sum`.
    """

    routable = False

    def __init__(
        self, site: ResidualSite, *, placement: Placement = "pre", scale: Scale = 1.0
    ) -> None:
        super().__init__(site, placement=placement, scale=scale)

    def begin(self, x: Tensor, use: Use) -> Stream:
        """The embeddings (B, T, C), which are written first."""
        return MixedStream(x, (written(x),))

    def end(self, stream: Stream, use: Use) -> Tensor:
        """The last mean, (B, T, C)."""
        return stream.x

    def shift(self, stream: Stream, vector: Tensor) -> Stream:
        """Added to what is read, and to no value that is mixed."""
        return MixedStream(stream.x + vector.to(stream.x.dtype), stream.history)

    def join(self, site: JoinSite) -> Join:
        """A mean with weights of its own."""
        return MixJoin(site, placement=self.placement, scale=self.scale)


class MixJoin(SumJoin):
    """The mean over the history, once the part's output is in it."""

    def __init__(
        self, site: JoinSite, *, placement: Placement, scale: float | Literal["learned"]
    ) -> None:
        super().__init__(site, placement=placement, scale=scale)
        self.query = nn.Parameter(torch.zeros(site.n_embd))

    def read(self, stream: Stream, use: Use) -> Tensor:
        """The mean that the part before has left, (B, T, C)."""
        return stream.x

    def forward(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        """The mean (B, T, C), and the history with `y` in it."""
        y = self.scaled(y, use)
        history = (*stream.history, written(y))
        query = wide(self.query)
        scores = [
            (wide(value) * query).sum(-1, keepdim=True) * inverse for value, inverse in history
        ]
        shares = torch.cat(scores, dim=-1).softmax(-1).to(y.dtype)  # (B, T, values)
        x = torch.zeros_like(y)
        for number, (value, _) in enumerate(history):
            x = x + shares[..., number, None] * value
        return MixedStream(normed(self.outer, x, use), history)


def written(value: Tensor) -> PartOutput:
    """A part's output with what mixing needs to know of it."""
    return PartOutput(value, torch.rsqrt(wide(value).square().mean(-1, keepdim=True) + EPS))
