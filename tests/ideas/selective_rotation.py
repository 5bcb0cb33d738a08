"""Selective rotary positions (Movahedi et al. 2025, arXiv 2511.17388): the text decides angles."""

import torch
from torch import nn

from strawberry.contracts import Positional, wide
from strawberry.plugin import hookimpl


class Selective(Positional):
    """Rotates token t by `sum_{s <= t} W k_s`, an angle for each pair of numbers of each head."""

    places = frozenset(["context"])

    def __init__(self, site):
        super().__init__()
        self.rates = nn.Parameter(torch.randn(site.n_embd) * 0.1)

    def check(self, n_head, width):
        if width % 2:
            raise ValueError(f"selective needs an even head width, got {width}")

    def relate(self, q, k, own, use):
        (B, G, _, D), H = k.shape, q.shape[1]
        rates = self.rates[: G * D].view(G, D, 1) * self.rates[: D // 2]
        angles = (wide(k) @ wide(rates)).cumsum(2)  # (B, G, S, D / 2): only differences count
        at = own.expand(B, -1)[:, None, :, None].expand(-1, G, -1, D // 2)
        own_angles = angles.gather(2, at).repeat_interleave(H // G, 1)
        return turned(q, own_angles), turned(k, angles), None


def turned(x, angles):
    """(..., D) by (..., D / 2) angles: numbers i and i + D / 2 are a pair."""
    (a, b), cos, sin = wide(x).chunk(2, -1), angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


@hookimpl
def strawberry_register(registry):
    registry.positional("selective", Selective)
