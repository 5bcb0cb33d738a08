"""U-shaped skips, and the embeddings mixed into every block (modded-nanogpt, 2024).

The first half of the blocks leave their outputs, the second half take them up in reverse; skips:
Ronneberger et al. 2015, arXiv 1505.04597.
"""

import torch
from torch import nn

from strawberry.contracts import Join, Residual
from strawberry.plugin import hookimpl


class UNet(Residual):
    """Skips from the first half of the blocks to the second, and input injection."""

    routable = False  # it grows, and shrinks again

    def begin(self, x, use):
        return {"x": x, "input": x, "skips": ()}

    def end(self, stream, use):
        return stream["x"]

    def shift(self, stream, vector):
        return {**stream, "x": stream["x"] + vector.to(stream["x"].dtype)}

    def join(self, site):
        return Skip(site)


class Skip(Join):
    def __init__(self, site):
        super().__init__()
        self.leaves = site.last and site.block < site.depth // 2
        takes = site.last and not self.leaves
        self.skip = nn.Parameter(torch.ones(1)) if takes else None
        self.inject = nn.Parameter(torch.tensor([1.0, 0.0])) if site.index == 0 else None

    def read(self, stream, use):
        if self.inject is None:
            return stream["x"]
        kept, injected = self.inject.to(stream["x"].dtype)
        return kept * stream["x"] + injected * stream["input"]

    def forward(self, stream, y, use):
        x, skips = stream["x"] + y, stream["skips"]
        if self.leaves:
            skips = (*skips, x)
        elif self.skip is not None and skips:
            *skips, last = skips
            x = x + self.skip.to(x.dtype) * last
        return {**stream, "x": x, "skips": tuple(skips)}


@hookimpl
def strawberry_register(registry):
    registry.residual("u_net", UNet)
