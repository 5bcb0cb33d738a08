"""Hyper-connections, static (Zhu et al. 2024, arXiv 2409.19606, eq. 2-4 and 14)."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import nn

from strawberry.contracts import Join, Residual
from strawberry.plugin import hookimpl


class HyperConnections(Residual):
    """n lanes of the stream; each part reads a sum of them, and learned matrices mix them.

    Args:
        lanes: how many, n.
    """

    def __init__(self, site, *, lanes: Annotated[int, Ge(1)] = 2):
        super().__init__()
        self.lanes = lanes

    def begin(self, x, use):
        return x[:, :, None].expand(-1, -1, self.lanes, -1)  # (B, T, n, C)

    def end(self, stream, use):
        return stream.sum(2)

    def join(self, site):
        return Lanes(self.lanes, 2 * site.block + site.index)


class Lanes(Join):
    def __init__(self, n, number):
        super().__init__()
        self.reading = nn.Parameter(nn.functional.one_hot(torch.tensor(number % n), n).float())
        self.mixing = nn.Parameter(torch.eye(n))
        self.writing = nn.Parameter(torch.ones(n))

    def read(self, stream, use):
        return torch.einsum("btnc,n->btc", stream, self.reading.to(stream.dtype))

    def forward(self, stream, y, use):
        mixed = torch.einsum("btnc,nm->btmc", stream, self.mixing.to(stream.dtype))
        return mixed + self.writing.to(y.dtype)[:, None] * y[:, :, None]


@hookimpl
def strawberry_register(registry):
    registry.residual("hyper_connections", HyperConnections)
