"""Hashed bigram embedding: a second table, of pairs of tokens (modded-nanogpt, record 62)."""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Embedding, hashed, history, new_history
from strawberry.plugin import hookimpl


class HashedBigram(Embedding):
    """`table[id] + gain * pairs[hash of id and the id before]`; the head is tied to the table.

    Args:
        rows: rows of the table of pairs.
    """

    parameter_kinds = {"weight": "embedding", "pairs": "embedding"}
    rewinds = True

    def __init__(self, site, *, rows: int = 256):
        super().__init__()
        self.rows = rows
        self.weight = site.table(site.vocab_size, site.n_embd)
        self.pairs = site.table(rows, site.n_embd, zero=True)
        self.gain = nn.Parameter(torch.full((1,), 0.5))

    @property
    def table(self):
        return self.weight

    def forward(self, ids, use):
        now, before = history(ids, use, 1).unbind(-1)
        pair = F.embedding((hashed(now, before) * self.rows).long(), self.pairs)
        own = F.embedding(ids, self.weight)
        return own + self.gain.to(own.dtype) * pair.where(before[..., None] >= 0, 0.0)

    def new_state(self, batch, length, device, dtype):
        return new_history(batch, length, device)


@hookimpl
def strawberry_register(registry):
    registry.embedding("hashed_bigram", HashedBigram)
