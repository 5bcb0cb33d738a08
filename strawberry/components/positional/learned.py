"""A learned table of positions, added to the embeddings (Radford et al. 2019, GPT-2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strawberry.contracts import Positional, PositionalSite, draw


class LearnedPositions(Positional):
    """One vector of width C for each position up to `block_size`, the longest sequence.

    `x_t + p_t` with the learned row p_t.

    Args:
        std: standard deviation of the table's normal initialisation.
    """

    places = frozenset({"embedding"})
    parameter_kinds = {"table.weight": "embedding"}

    def __init__(self, site: PositionalSite, *, std: float = 0.02) -> None:
        super().__init__()
        self.table = nn.Embedding(
            site.block_size, site.n_embd, _weight=torch.empty(site.block_size, site.n_embd)
        )
        draw(self.table.weight, std, uniform=False)

    def embed(self, positions: Tensor) -> Tensor:
        """(T,) -> (T, C)."""
        return self.table(positions)

    def limit(self) -> int:
        """`block_size`."""
        return self.table.num_embeddings
