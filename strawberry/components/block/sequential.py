"""The usual block (Vaswani et al. 2017, arXiv 1706.03762, section 3.1)."""

from __future__ import annotations

from strawberry.contracts import Aux, Block, BlockSite, Stream, Use


class SequentialBlock(Block):
    """The parts that the entry names, one after the other: attention, then ffn.

    `x <- x + attention(norm(x))`, then `x <- x + ffn(norm(x))`, with the usual norms and
    residual.
    """

    def __init__(self, site: BlockSite) -> None:
        super().__init__()
        self.parts = [site.part(name) for name in site.parts]

    def forward(self, stream: Stream, use: Use) -> tuple[Stream, Aux]:
        """Each part reads what the one before has left."""
        aux: Aux = ()
        for part in self.parts:
            stream, more = part(stream, use)
            aux += more
        return stream, aux
