"""A small embedding for each block, which it reads (Gemma 3n, Google 2025).

The sum of a table's row and of a projection of the token's embedding, as in its reference code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import EmbeddingSite, Use, WrappedEmbedding, drawn, wide
from strawberry.plugin import Kind


class PerLayerEmbedding(WrappedEmbedding):
    """An input `per_layer` of each block, (B, T, blocks, width), which block `per_layer` reads.

    It is `(table[id] + norm(x W)) / sqrt(2)` for the embedding x, normed by block.

    Args:
        base: the embedding x of tokens.
        width: width of the input of a block.
    """

    parameter_kinds = {"weight": "embedding"}
    checked_with: ClassVar[Mapping[str, Any]] = {"model.block": "per_layer"}

    def __init__(
        self,
        site: EmbeddingSite,
        *,
        base: Annotated[Any, Kind("embedding")] = "tokens",
        width: Annotated[int, Ge(1)] = 16,
    ) -> None:
        super().__init__(site.component(base))
        self.width, self.n_blocks = width, site.n_blocks
        inside = site.n_blocks * width
        self.weight = site.table(site.vocab_size, inside)
        self.mix = drawn(inside, site.n_embd, std=site.n_embd**-0.5, uniform=True)

    def forward(self, ids: Tensor, use: Use) -> Tensor:
        """(B, T) -> (B, T, C)."""
        x: Tensor = self.base(ids, use)
        return x

    def inputs(self, ids: Tensor, x: Tensor, use: Use) -> Mapping[str, Tensor]:
        """The base's, and `per_layer`."""
        shape = (*ids.shape, self.n_blocks, self.width)
        rows = F.embedding(ids, self.weight).view(shape)
        mixed = wide(F.linear(x, self.mix).view(shape))
        mixed = mixed * (mixed.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        own = (rows + mixed.to(rows.dtype)) * 0.5**0.5
        return {**super().inputs(ids, x, use), "per_layer": own}

    def input_widths(self) -> Mapping[str, int]:
        """The base's, and `width`."""
        return {**super().input_widths(), "per_layer": self.width}
