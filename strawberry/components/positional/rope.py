"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864, eq. 34), half-split form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from strawberry.errors import FieldError
from strawberry.model.contracts import Place, Positional, Use, wide


class RoPE(Positional):
    """Rotates the pair (i, i + D/2) of queries and keys by `position * base^(-2i/D)`.

    Angles are taken in float32; the rotation is applied in float32 and cast back. The tables are
    computed once in a pass, so there is nothing to outgrow and nothing to save.

    Args:
        base: the slowest rotation turns once in about `2 pi base` positions.
        sign: 1 turns by +angle, as in the paper; -1 by -angle, as in some checkpoints. Scores are
            the same functions of distance; weights of one convention don't fit the other.
    """

    places: ClassVar[frozenset[Place]] = frozenset({"rotary"})

    def __init__(
        self, n_embd: int, block_size: int, *, base: float = 10000.0, sign: int = 1
    ) -> None:
        super().__init__()
        if sign not in (1, -1):
            raise FieldError("sign", f"{sign} is neither 1 nor -1")
        if base <= 1:
            raise FieldError("base", f"{base} is not above 1")
        self.base = base
        self.sign = sign

    def table(self, use: Use, width: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine for each of the use's positions: two tensors (T, D/2) in float32."""
        key = ("rope", self.base, self.sign, width)
        if key not in use.memo:
            exponent = torch.arange(0, width, 2, device=use.positions.device) / width
            angles = torch.outer(use.positions.float(), self.base**-exponent) * self.sign
            use.memo[key] = angles.cos(), angles.sin()
        cos, sin = use.memo[key]
        return cos, sin

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        """(B, H, T, D) -> (B, H, T, D); raises ValueError for an odd D."""
        width = x_BHTD.shape[-1]
        if width % 2:
            raise ValueError(f"rope needs an even head width, not {width}")
        cos, sin = self.table(use, width)
        x1, x2 = wide(x_BHTD).chunk(2, dim=-1)
        y = torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)
        return y.to(x_BHTD.dtype)
