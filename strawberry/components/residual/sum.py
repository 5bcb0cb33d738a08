"""The residual stream as a sum (He et al. 2015), and where it is normalised.

Post: Vaswani et al. 2017, section 3.1; sandwich: Ding et al. 2021 (CogView), arXiv 2105.13290,
section 2.4; a gain for each channel: Touvron et al. 2021 (LayerScale), arXiv 2103.17239, eq. 1.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from annotated_types import Gt
from torch import Tensor, nn

from strawberry.contracts import Join, JoinSite, Residual, ResidualSite, Stream, Use, normed

Placement: TypeAlias = Literal["pre", "post", "sandwich"]
Scale: TypeAlias = Literal["depth", "learned"] | Annotated[float, Gt(0)]


class SumResidual(Residual):
    """`x + scale * y`: what a part computed is added to what it read.

    Args:
        placement: where a block's parts are normalised: `pre` before, `post` after they have been
            added, `sandwich` before, and once more before they are added.
        scale: what a part's output is multiplied by: a number, `depth` for one over the root of
            the number of parts, or `learned` for a gain for each channel that starts at 1.
    """

    def __init__(
        self, site: ResidualSite, *, placement: Placement = "pre", scale: Scale = 1.0
    ) -> None:
        super().__init__()
        self.placement: Placement = placement
        self.scale: float | Literal["learned"]
        self.scale = (2 * site.depth) ** -0.5 if scale == "depth" else scale

    def join(self, site: JoinSite) -> Join:
        """`x + scale * y`, with the norms of the placement."""
        return SumJoin(site, placement=self.placement, scale=self.scale)


class SumJoin(Join):
    """`x + scale * y`, with a normalisation of `y` (sandwich) or of the sum (post)."""

    def __init__(
        self, site: JoinSite, *, placement: Placement, scale: float | Literal["learned"]
    ) -> None:
        super().__init__()
        self.reads_normed = placement != "post"
        self.scale = 1.0 if scale == "learned" else scale
        self.gain = nn.Parameter(torch.ones(site.n_embd)) if scale == "learned" else None
        self.inner = site.norm("inner") if placement == "sandwich" else None
        self.outer = site.norm("outer") if placement == "post" else None
        self.scales_branch = placement == "sandwich"
        self.branch = site.branch if self.scales_branch else 1.0

    def read(self, stream: Stream, use: Use) -> Tensor:
        """The stream, (B, T, C)."""
        return stream

    def forward(self, stream: Stream, y: Tensor, use: Use) -> Stream:
        """(B, T, C) and (B, T, C) -> (B, T, C)."""
        return normed(self.outer, stream + self.scaled(y, use), use)

    def scaled(self, y: Tensor, use: Use) -> Tensor:
        """What is added, (B, T, C)."""
        y = normed(self.inner, y, use)
        if self.branch != 1:
            y = y * self.branch
        if self.gain is not None:
            return y * self.gain.to(y.dtype)
        return y if self.scale == 1.0 else y * self.scale
