"""Attention with linear biases (Press et al. 2021, arXiv 2108.12409, section 3)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from strawberry.model.contracts import Place, Positional


class ALiBi(Positional):
    """Adds `-m_h (t - s)` to the score of query t for key s; nothing is learned.

    The slopes m_h of H heads, H a power of two, are `2^(-8h/H)` for h = 1..H; for other numbers of
    heads those of the power of two below, and every second one of the power above. Any length can
    be placed.
    """

    places: ClassVar[frozenset[Place]] = frozenset({"bias"})

    def __init__(self, n_embd: int, block_size: int) -> None:
        super().__init__()

    def bias(self, n_head: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(H, Tq, Tk), in float32."""
        slope = torch.tensor(slopes(n_head), device=queries.device)
        return -slope[:, None, None] * (queries[:, None] - keys)


def slopes(n_head: int) -> list[float]:
    """The slope of each head."""
    power = 1 << (n_head.bit_length() - 1)
    found = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    if power < n_head:
        found += slopes(2 * power)[0::2][: n_head - power]
    return found
