"""Per-layer embeddings: each block adds a row of a table of its own (after Gemma 3n, 2025)."""

from torch.nn import functional as F

from strawberry.contracts import FFN, Embedding
from strawberry.plugin import hookimpl


class RowsForBlocks(Embedding):
    """A table for the stream, and one with a row of `width` for each block: input `rows`."""

    parameter_kinds = {"weight": "embedding", "rows": "embedding"}
    checked_with = {"model.stack[0].ffn": "reads_rows"}

    def __init__(self, site, *, width: int = 8):
        super().__init__()
        self.width, self.n_blocks = width, site.n_blocks
        self.weight = site.table(site.vocab_size, site.n_embd)
        self.rows = site.table(site.vocab_size, site.n_blocks * width)

    @property
    def table(self):
        return self.weight

    def forward(self, ids, use):
        return F.embedding(ids, self.weight)

    def inputs(self, ids, x, use):
        return {"rows": F.embedding(ids, self.rows).unflatten(-1, (self.n_blocks, self.width))}

    def input_widths(self):
        return {"rows": self.width}


class ReadsRows(FFN):
    """`down (silu(up x) * row)`, where the row is that of the token and of this block.

    Args:
        width: width of a block's row.
    """

    checked_with = {"model.embedding": "rows_for_blocks"}

    def __init__(self, site, *, width: int = 8):
        super().__init__()
        self.block, self.reads_inputs = site.block, {"rows": width}
        self.up = site.projection("up", width, site.n_embd)
        self.down = site.projection("down", site.n_embd, width, output=True)

    def forward(self, x, use):
        row = use.inputs["rows"][..., self.block, :]
        return self.down(F.silu(self.up(x, use)) * row.to(x.dtype), use)


@hookimpl
def strawberry_register(registry):
    registry.embedding("rows_for_blocks", RowsForBlocks)
    registry.ffn("reads_rows", ReadsRows)
