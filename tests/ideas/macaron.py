"""Macaron blocks: half a network on both sides of the attention (Lu et al. 2019).

arXiv 1906.02762, section 3.2, eq. 16 to 18.
"""

from typing import Annotated, Any

from strawberry.contracts import Block
from strawberry.plugin import Kind, hookimpl


class Macaron(Block):
    """`x + f(x) / 2`, then attention, then `x + g(x) / 2`; g is the entry's network.

    Args:
        first: the network before the attention.
    """

    def __init__(self, site, *, first: Annotated[Any, Kind("ffn")] = "strawberry/swiglu"):
        super().__init__()
        self.parts = [site.part("first", first), site.part("attention"), site.part("ffn")]

    def forward(self, stream, use):
        aux = ()
        for part, share in zip(self.parts, (0.5, 1, 0.5), strict=True):
            y, more = part.compute(part.read(stream, use), use)
            stream, aux = part.join(stream, share * y, use), aux + more
        return stream, aux


@hookimpl
def strawberry_register(registry):
    registry.block("macaron", Macaron)
