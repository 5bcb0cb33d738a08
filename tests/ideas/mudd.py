"""MUDD connections: dense ones whose weights each token chooses (Xiao et al. 2025).

arXiv 2502.12170, eq. 3-5; here what the whole block reads is mixed, which is one of its four ways.
"""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Join, Residual
from strawberry.plugin import hookimpl


class Mudd(Residual):
    """After each block the stream is a sum of all outputs so far, weighed by each token."""

    routable = False  # it grows with every block

    def begin(self, x, use):
        return x, (x,)

    def end(self, stream, use):
        return stream[0]

    def shift(self, stream, vector):
        return stream[0] + vector.to(stream[0].dtype), stream[1]

    def join(self, site):
        return Weighed(site)


class Weighed(Join):
    def __init__(self, site):
        super().__init__()
        self.inner = None
        if site.last:
            many = site.depth + 1  # by distance, as far as any block looks back
            self.inner = nn.Linear(site.n_embd, many, bias=False)
            self.outer = nn.Parameter(torch.zeros(many, many))
            self.fixed = nn.Parameter(torch.eye(many)[0].clone())

    def read(self, stream, use):
        return stream[0]

    def forward(self, stream, y, use):
        x, written = stream[0] + y, stream[1]
        if self.inner is None:
            return x, written
        written = (*written, x)
        asked = F.gelu(self.inner(F.rms_norm(x, x.shape[-1:])))
        weights = asked @ self.outer.to(asked.dtype) + self.fixed.to(asked.dtype)  # (B, T, many)
        pairs = zip(weights.unbind(-1), reversed(written), strict=False)
        return sum(weight[..., None] * value for weight, value in pairs), written


@hookimpl
def strawberry_register(registry):
    registry.residual("mudd", Mudd)
