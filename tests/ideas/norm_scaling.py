"""LayerNorm scaling (Sun et al. 2025, The Curse of Depth, arXiv 2502.05795, section 4)."""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Norm, wide
from strawberry.plugin import hookimpl


class Scaled(Norm):
    """A root-mean-square norm times 1 / sqrt(l), in block l, from 1; 1 outside of blocks."""

    def __init__(self, site):
        super().__init__()
        before_part = site.block is not None and "." not in site.role
        self.factor = (site.block + 1) ** -0.5 if before_part else 1.0
        self.gain = nn.Parameter(torch.ones(site.features))

    def forward(self, x):
        y = F.rms_norm(wide(x), x.shape[-1:]) * self.factor
        return (y * self.gain).to(x.dtype)


@hookimpl
def strawberry_register(registry):
    registry.norm("scaled", Scaled)
