"""A table with a vector for each token id, optionally scaled.

By the root of the width: Vaswani et al. 2017, section 3.4; Gemma Team 2024, arXiv 2403.08295.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Embedding, EmbeddingSite, Use

Scale: TypeAlias = Literal["width"] | Annotated[float, Gt(0)]


class TokenTable(Embedding):
    """A row of a table (V, C) for each token id.

    Args:
        scale: factor on the vectors, not on a head that is tied to the table: a number, or `width`
            for the root of the width, as in Gemma.
    """

    parameter_kinds = {"weight": "embedding"}

    def __init__(self, site: EmbeddingSite, *, scale: Scale = 1.0) -> None:
        super().__init__()
        self.scale = site.n_embd**0.5 if scale == "width" else scale
        self.weight = site.table(site.vocab_size, site.n_embd)

    @property
    def table(self) -> Tensor:
        """(V, C)."""
        return self.weight

    def forward(self, ids: Tensor, use: Use) -> Tensor:
        """(B, T) -> (B, T, C)."""
        x = F.embedding(ids, self.weight)
        return x if self.scale == 1 else x * self.scale
