"""Attention and network side by side (Wang and Komatsuzaki 2021, GPT-J; PaLM, arXiv 2204.02311)."""

from __future__ import annotations

from strawberry.contracts import Aux, Block, BlockSite, Stream, Use


class ParallelBlock(Block):
    """`x + attention(norm(x)) + ffn(norm(x))`: both parts read the same stream, by one norm."""

    def __init__(self, site: BlockSite) -> None:
        super().__init__()
        self.attention = site.part("attention")
        self.ffn = site.part("ffn", alone=True)

    def forward(self, stream: Stream, use: Use) -> tuple[Stream, Aux]:
        """What both computed joins the stream as one output."""
        x = self.attention.read(stream, use)
        y, first = self.attention.compute(x, use)
        z, second = self.ffn.compute(x, use)
        return self.attention.join(stream, y + z, use), first + second
