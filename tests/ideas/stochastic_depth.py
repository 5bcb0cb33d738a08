"""Stochastic depth: training leaves parts out at random (Huang et al. 2016, arXiv 1603.09382)."""

from typing import Annotated

import torch
from annotated_types import Ge, Lt

from strawberry.contracts import Join, Residual
from strawberry.plugin import hookimpl


class StochasticDepth(Residual):
    """A part's output is left out for some sequences; the deeper the block, the more often.

    Args:
        drop: probability in the last block; it rises linearly from 0, eq. 4.
    """

    def __init__(self, site, *, drop: Annotated[float, Ge(0), Lt(1)] = 0.2):
        super().__init__()
        self.drop = drop

    def join(self, site):
        return Dropped(self.drop * (site.block + 1) / site.depth)


class Dropped(Join):
    def __init__(self, drop):
        super().__init__()
        self.keep = 1 - drop

    def read(self, stream, use):
        return stream

    def forward(self, stream, y, use):
        if self.training and self.keep < 1:
            kept = torch.rand(len(y), 1, 1, device=y.device) < self.keep  # (B, 1, 1)
            y = y * kept / self.keep
        return stream + y


@hookimpl
def strawberry_register(registry):
    registry.residual("stochastic_depth", StochasticDepth)
