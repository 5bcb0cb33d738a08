"""The residual stream: what blocks read, and how a part's output is added.

B batch, T tokens, C model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from strawberry.contracts import Use, wide

EPS = torch.finfo(torch.float32).eps
"""Added to the mean square of mixed vectors: enough for a row of zeros."""


class PerStep(nn.Module):
    """A normalisation for each step of the innermost recursion; beyond them that of the last."""

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)


def per_step(norm: Callable[[], nn.Module], steps: int) -> nn.Module:
    """A norm, or a separate one for each step; 0 for one for all."""
    return PerStep(norm() for _ in range(steps)) if steps else norm()


def normed(norm: nn.Module | None, x: Tensor, use: Use) -> Tensor:
    """`x` through a norm, that of this step if there are several; unchanged without one."""
    if norm is None:
        return x
    if isinstance(norm, PerStep):
        norm = norm.norms[min(use.steps[-1], len(norm.norms) - 1)]
    return norm(x)


class PartOutput(NamedTuple):
    """A part's output, (B, T, C), and the inverse of its root mean square, (B, T, 1)."""

    value: Tensor
    inverse_rms: Tensor


class ResidualStream(NamedTuple):
    """The value that passes from block to block.

    Attributes:
        x: the input of the next part, (B, T, C).
        history: the embeddings and each part's output since, for attention residuals; else empty.
    """

    x: Tensor
    history: tuple[PartOutput, ...] = ()


class Join(nn.Module):
    """`x + scale * y`, with a normalisation of `y` (sandwich) or of the sum (post).

    Sandwich: Ding et al. 2021 (CogView), arXiv 2105.13290, section 2.4; post: Vaswani et al. 2017,
    section 3.1.

    Args:
        features: model width C.
        scale: factor on `y`: a number, or `learned`, a gain for each channel that starts at 1
            (Touvron et al. 2021, arXiv 2103.17239, eq. 1).
        inner: the normalisation of `y`, or None.
        outer: the normalisation of the sum, or None.
    """

    def __init__(
        self,
        features: int,
        *,
        scale: float | Literal["learned"] = 1.0,
        inner: nn.Module | None = None,
        outer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.scale = 1.0 if scale == "learned" else scale
        self.gain = nn.Parameter(torch.ones(features)) if scale == "learned" else None
        self.inner = inner
        self.outer = outer

    def forward(self, stream: ResidualStream, y: Tensor, use: Use) -> ResidualStream:
        """The stream after a part that read `stream.x` and computed `y`, (B, T, C)."""
        y = normed(self.inner, y, use)
        if self.gain is not None:
            y = y * self.gain.to(y.dtype)
        elif self.scale != 1.0:
            y = y * self.scale
        x, history = self.add(stream, y)
        return ResidualStream(normed(self.outer, x, use), history)

    def add(self, stream: ResidualStream, y: Tensor) -> ResidualStream:
        """The plain sum."""
        return ResidualStream(stream.x + y)


class Mix(Join):
    """Attention residuals: a part's input is a learned mean of all earlier outputs.

    `x = sum_i a_i v_i` with `a = softmax_i(w . v_i / rms(v_i))`, over the embeddings v_0 and the
    outputs v_1... of the parts so far; w starts at zero, which is the plain mean (Kimi Team 2026,
    arXiv 2603.15031, eq. 5 and 6). Under recursion the history grows with each use, and the uses
    of a block share its w.
    """

    def __init__(
        self,
        features: int,
        *,
        scale: float | Literal["learned"] = 1.0,
        inner: nn.Module | None = None,
        outer: nn.Module | None = None,
    ) -> None:
        super().__init__(features, scale=scale, inner=inner, outer=outer)
        self.query = nn.Parameter(torch.zeros(features))

    def add(self, stream: ResidualStream, y: Tensor) -> ResidualStream:
        """The mean, and the history with `y` in it."""
        history = (*stream.history, written(y))
        query = wide(self.query)
        scores = [
            (wide(value) * query).sum(-1, keepdim=True) * inverse for value, inverse in history
        ]
        shares = torch.cat(scores, dim=-1).softmax(-1).to(y.dtype)
        x = torch.zeros_like(y)
        for number, (value, _) in enumerate(history):
            x = x + shares[..., number, None] * value
        return ResidualStream(x, history)


def written(value: Tensor) -> PartOutput:
    """A part's output with the statistic for mixing."""
    return PartOutput(value, torch.rsqrt(wide(value).square().mean(-1, keepdim=True) + EPS))
