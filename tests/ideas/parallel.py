"""Attention and network side by side (Chowdhery et al. 2022, PaLM, arXiv 2204.02311, section 2)."""

from strawberry.contracts import Block
from strawberry.plugin import hookimpl


class SideBySide(Block):
    """`x + attention(norm(x)) + ffn(norm(x))`, by one norm."""

    def __init__(self, site):
        super().__init__()
        self.attention, self.ffn = site.part("attention"), site.part("ffn", alone=True)

    def forward(self, stream, use):
        x = self.attention.read(stream, use)
        (y, first), (z, second) = self.attention.compute(x, use), self.ffn.compute(x, use)
        return self.attention.join(stream, y + z, use), first + second


@hookimpl
def strawberry_register(registry):
    registry.block("palm", SideBySide)
