"""Tables of hashed n-grams, added to the embeddings of tokens.

modded-nanogpt (Jordan et al. 2025) has one of pairs; several orders: Engram, Cheng et al. 2026,
arXiv 2601.07372, section 2.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import (
    EmbeddingSite,
    State,
    Use,
    WrappedEmbedding,
    hashed,
    history,
    new_history,
)
from strawberry.plugin import Kind


class NGramEmbedding(WrappedEmbedding):
    """`base + sum of table_n[hash of the last n tokens]`.

    Tables start at zero. Different n-grams share a row if their hashes do. A token with fewer
    tokens before it in its document has no n-gram.

    Args:
        base: the embedding of tokens.
        orders: lengths n of the n-grams, each with a table; 2 is a pair.
        rows: rows of each table; null takes five times the vocabulary.
    """

    rewinds = True

    def __init__(
        self,
        site: EmbeddingSite,
        *,
        base: Annotated[Any, Kind("embedding")] = "tokens",
        orders: Annotated[tuple[Annotated[int, Ge(2), Le(8)], ...], Len(1, 7)] = (2,),
        rows: Annotated[int, Ge(1), Le(1 << 24)] | None = None,
    ) -> None:
        super().__init__(site.component(base))
        self.orders = orders
        self.rows = rows if rows is not None else min(5 * site.vocab_size, 1 << 24)
        width = site.n_embd
        self.tables = nn.ParameterList(site.table(self.rows, width, zero=True) for _ in orders)
        self.parameter_kinds = {f"tables.{n}": "embedding" for n in range(len(orders))}

    def forward(self, ids: Tensor, use: Use) -> Tensor:
        """(B, T) -> (B, T, C)."""
        x = self.base(ids, use)
        seen = history(ids, use, max(self.orders) - 1)
        for order, table in zip(self.orders, self.tables, strict=True):
            tokens = seen[..., :order].unbind(-1)
            row = (hashed(order, *tokens) * self.rows).long()
            whole = (tokens[-1] >= 0)[..., None]
            x = x + F.embedding(row, table).where(whole, 0.0)
        return x

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The base's, and the ids so far."""
        return {
            **super().new_state(batch, length, device, dtype),
            **new_history(batch, length, device),
        }
