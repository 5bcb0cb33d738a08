"""Sinusoids, added to the embeddings (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from strawberry.contracts import Positional, PositionalSite, exact


class Sinusoidal(Positional):
    """Number 2i of position t is `sin(t / base^(2i/C))`, number 2i + 1 its cosine.

    Nothing is learned; any length works.

    Args:
        base: the slowest sinusoid turns once in about `2 pi base` positions.
        scale: factor on the sinusoids. The paper multiplies the embeddings by sqrt(C) instead; for
            embeddings of standard deviation s this corresponds to about `s * sqrt(2)`.
    """

    places = frozenset({"embedding"})

    def __init__(
        self,
        site: PositionalSite,
        *,
        base: Annotated[float, Gt(1)] = 10000.0,
        scale: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__()
        self.n_embd = site.n_embd
        self.base = base
        self.scale = scale

    def embed(self, positions: Tensor) -> Tensor:
        """(T,) -> (T, C), in float32."""
        device = positions.device
        dtype = exact(device)
        pair = torch.arange(self.n_embd, device=device) // 2
        angles = positions.to(dtype)[:, None] * self.base ** (-2 * pair.to(dtype) / self.n_embd)
        even = torch.arange(self.n_embd, device=device) % 2 == 0
        return (self.scale * torch.where(even, angles.sin(), angles.cos())).float()
