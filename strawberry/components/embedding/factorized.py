"""A narrow table and a matrix (Lan et al. 2019, ALBERT, arXiv 1909.11942, section 3.1)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Embedding, EmbeddingSite, Use, Weight, drawn


class FactorizedEmbedding(Embedding):
    """Rows of a table (V, rank), widened by a matrix (C, rank): V rank + C rank parameters.

    `x = E[id] W^T`.

    A tied head narrows hidden states by the same matrix, and multiplies with the table.

    Args:
        rank: width of the table; null takes a quarter of the model's.
    """

    parameter_kinds = {"weight": "embedding", "up": "embedding"}

    def __init__(self, site: EmbeddingSite, *, rank: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__()
        rank = rank if rank is not None else max(1, site.n_embd // 4)
        self.weight = site.table(site.vocab_size, rank)
        # Vectors are sums of `rank` products, and start as large as those of a whole table.
        start = site.parametrization.initial(
            Weight("embedding.up", "matrix", rank, site.n_embd, grows=(False, True), in_block=False)
        )
        self.up = drawn(site.n_embd, rank, std=rank**-0.5, uniform=start.uniform)

    @property
    def table(self) -> Tensor:
        """(V, rank)."""
        return self.weight

    def forward(self, ids: Tensor, use: Use) -> Tensor:
        """(B, T) -> (B, T, C)."""
        return F.linear(F.embedding(ids, self.weight), self.up)

    def before_head(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., rank)."""
        return F.linear(hidden, self.up.T)
