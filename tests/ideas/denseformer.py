"""DenseFormer: a weighted mean of all blocks' outputs after each (Pagliardini et al. 2024).

arXiv 2402.02622, eq. 1, with period and dilation 1.
"""

import torch
from torch import nn

from strawberry.contracts import Join, Residual
from strawberry.plugin import hookimpl


class DenseFormer(Residual):
    """After each block the stream is a learned sum of the embeddings and all blocks' outputs."""

    routable = False  # it grows with every block

    def begin(self, x, use):
        return x, (x,)

    def end(self, stream, use):
        return stream[0]

    def shift(self, stream, vector):
        return stream[0] + vector.to(stream[0].dtype), stream[1]

    def join(self, site):
        return Dense(site)


class Dense(Join):
    def __init__(self, site):
        super().__init__()
        # By distance: what this block has written, the one before, and so on.
        first = torch.eye(site.depth + 1)[0].clone()
        self.weights = nn.Parameter(first) if site.last else None

    def read(self, stream, use):
        return stream[0]

    def forward(self, stream, y, use):
        x, written = stream
        x = x + y
        if self.weights is None:
            return x, written
        written = (*written, x)
        pairs = zip(self.weights.to(x.dtype), reversed(written), strict=False)
        return sum(weight * value for weight, value in pairs), written


@hookimpl
def strawberry_register(registry):
    registry.residual("denseformer", DenseFormer)
