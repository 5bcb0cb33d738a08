"""Attention with linear biases (Press et al. 2021, arXiv 2108.12409, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from strawberry.contracts import Positional, PositionalSite


class ALiBi(Positional):
    """Adds `-m_h (t - s)` to the score of query t for key s; nothing is learned.

    The slopes m_h of H heads, H a power of two, are `2^(-8h/H)` for h = 1..H. For other numbers of
    heads they are those of the power of two below, and every second one of the power above. Any
    length works.
    """

    places = frozenset({"bias"})

    def __init__(self, site: PositionalSite) -> None:
        super().__init__()

    def bias(self, n_head: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(H, Tq, Tk), in float32."""
        slope = slopes(n_head, queries.device)
        return -slope[:, None, None] * (queries[:, None] - keys).abs()


def slopes(n_head: int, device: torch.device) -> Tensor:
    """(H,) the slope of each head, in float32; created on the device, without a copy."""
    power = 1 << (n_head.bit_length() - 1)
    first = torch.arange(1, power + 1, device=device) * (-8 / power)
    between = (2 * torch.arange(n_head - power, device=device) + 1) * (-4 / power)
    return torch.exp2(torch.cat((first, between)))
