"""Attention and a second mixer side by side in one block (Dong et al. 2024, Hymba).

arXiv 2411.13676, section 2.1: both read the same input, and the mean of what they normalised is
the block's mixer.
"""

from typing import Annotated, Any

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Block
from strawberry.plugin import Kind, hookimpl


class SideBySide(Block):
    """`(b_1 rms(attention(x)) + b_2 rms(mixer(x))) / 2`, then the entry's network.

    Args:
        mixer: what stands beside the entry's attention.
    """

    def __init__(self, site, *, mixer: Annotated[Any, Kind("attention")] = "strawberry/linear"):
        super().__init__()
        self.attention = site.part("attention")
        self.mixer = site.part("mixer", mixer, alone=True)
        self.rest = [site.part(name) for name in site.parts if name != "attention"]
        self.gains = nn.Parameter(torch.ones(2, site.n_embd))

    def forward(self, stream, use):
        x = self.attention.read(stream, use)
        y, aux = self.attention.compute(x, use)
        z, more = self.mixer.compute(x, use)
        first, second = self.gains.to(y.dtype)
        mixed = (first * F.rms_norm(y, y.shape[-1:]) + second * F.rms_norm(z, z.shape[-1:])) / 2
        stream, aux = self.attention.join(stream, mixed, use), aux + more
        for part in self.rest:
            stream, more = part(stream, use)
            aux += more
        return stream, aux


@hookimpl
def strawberry_register(registry):
    registry.block("side_by_side", SideBySide)
