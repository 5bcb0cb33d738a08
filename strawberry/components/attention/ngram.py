"""A memory of n-grams: a learned vector for the last few token ids, found by a hash.

    y[t] = 2 sigmoid(w . x[t]) sum_{n in orders} E_n[hash(i[t], ..., i[t-n+1]) mod rows]

What a model would have to work out about the commonest pairs and triples of ids it looks up, at the
cost of a row. N-gram vectors beside those of tokens are in Huang et al. 2025 (arXiv 2501.16975) and
in the public speedruns of modded-nanogpt. What entered the block has a say in how much is taken.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, MinLen
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Attention, Site, State, Use, drawn
from strawberry.errors import FieldError

NONE = -1
"""What stands before the first token, and before the first of a document that is seen alone."""

STD = 0.01
"""Deviation at the start: next to nothing beside an embedding that is normalised."""

FACTORS = (1_000_003, 998_244_353, 754_974_721, 469_762_049, 167_772_161, 104_857_601)
"""An id's multiplier, by how far back it is; primes, so that they share no factor with `rows`."""


class NGram(Attention):
    """Vectors of the last few token ids, by a hash, and a gate.

    It is meant as a block of its own before all others, with `norm: none`. N-grams share a row
    where their hashes agree. The table is of the kind `embedding`; its rows are seldom seen, so
    that it likes a rate of its own, about ten times that of other embeddings.

    Args:
        orders: how many ids a gram has, for each table.
        rows: rows of each table.
    """

    separates: ClassVar[bool] = True
    routable: ClassVar[bool] = False
    parameter_kinds: ClassVar[dict[str, str]] = {"table": "embedding"}

    def __init__(
        self,
        site: Site,
        *,
        orders: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (2,),
        rows: Annotated[int, Ge(1)] = 32768,
    ) -> None:
        super().__init__()
        if max(orders) > len(FACTORS):
            raise FieldError("orders", f"{max(orders)} ids are too many: {len(FACTORS)} at most")
        self.orders = orders
        self.rows = rows
        self.table = drawn(len(orders) * rows, site.n_embd, std=STD, uniform=False)
        self.gate = drawn(site.n_embd, std=STD, uniform=False)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        assert use.tokens is not None
        back = self._back(use.tokens, use)
        places = [self._hash(back[:order]) + self.rows * n for n, order in enumerate(self.orders)]
        y = F.embedding(torch.stack(places), self.table).sum(0).to(x.dtype)
        return y * (2 * torch.sigmoid(x @ self.gate.to(x.dtype)))[..., None]

    def _back(self, tokens: Tensor, use: Use) -> list[Tensor]:
        """Each token's id and those before it, (B, T) each, and NONE where there is none."""
        reach, T = max(self.orders) - 1, tokens.shape[1]
        if use.state is not None:
            line = torch.cat((use.state["recent"], tokens), dim=1)
            use.state["recent"].copy_(line[:, line.shape[1] - reach :])
        else:
            line = F.pad(tokens, (reach, 0), value=NONE)
        shifted = [line[:, reach - n : reach - n + T] for n in range(reach + 1)]
        if use.documents is None:
            return shifted
        documents = F.pad(use.documents, (reach, 0), value=NONE)
        own = [documents[:, reach - n : reach - n + T] == use.documents for n in range(reach + 1)]
        return [ids.where(same, NONE) for ids, same in zip(shifted, own, strict=True)]

    def _hash(self, back: list[Tensor]) -> Tensor:
        mixed = back[0] + 1
        for n, ids in enumerate(back):
            mixed = (mixed * FACTORS[0]) ^ ((ids + 1) * FACTORS[n])
            mixed = mixed % ((1 << 31) - 1)
        return mixed % self.rows

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The last ids: one less than the longest gram has."""
        shape = (batch, max(self.orders) - 1)
        return {"recent": torch.full(shape, NONE, dtype=torch.int64, device=device)}
