"""A block that reads an input of its own (Gemma 3n, Google 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from strawberry.components.block.sequential import SequentialBlock
from strawberry.contracts import FFN, BlockSite, Site, Use


class PerLayerBlock(SequentialBlock):
    """The parts in turn, then `down (gelu(gate x) * input)`, with its own norm and join.

    The input is that of embedding `per_layer`, of this block; it has to be as wide. Blocks of an
    objective read that of the last block.

    Args:
        width: width of the input.
    """

    checked_with: ClassVar[Mapping[str, Any]] = {"model.embedding": "per_layer"}

    def __init__(self, site: BlockSite, *, width: Annotated[int, Ge(1)] = 16) -> None:
        super().__init__(site)
        self.parts.append(site.part("per_layer", PerLayerInput(site, width)))


class PerLayerInput(FFN):
    """`down (gelu(gate x) * input)`."""

    def __init__(self, site: Site, width: int) -> None:
        super().__init__()
        site = replace(site, role="per_layer")
        self.block = site.block
        self.reads_inputs = {"per_layer": width}
        self.gate = site.projection("gate", width, site.n_embd, bias=False)
        self.down = site.projection("down", site.n_embd, width, output=True, bias=False)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        every = use.inputs["per_layer"]
        own = every[..., min(self.block, every.shape[-2] - 1), :]
        return self.down(F.gelu(self.gate(x, use)) * own.to(x.dtype), use)
