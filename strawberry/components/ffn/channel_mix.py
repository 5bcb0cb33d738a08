"""RWKV's channel mix, with its token shift (Peng et al. 2025, RWKV-7, arXiv 2503.14456, eq. 22)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import FFN, Site, State, Use


class ChannelMix(FFN):
    """`down relu(up (x_t + m (x_{t-1} - x_t)))^2`: a network that reads a token and the one before.

    The token before the first of a sequence, or of a document, is zero. Its state is one token.

    Args:
        n_ffn: hidden width; null takes four times the model's.
    """

    def __init__(self, site: Site, *, n_ffn: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__()
        width = n_ffn if n_ffn is not None else 4 * site.n_embd
        self.n_embd = site.n_embd
        # The share of the token before, by channel; RWKV's start, less of it the deeper the block.
        place = torch.arange(site.n_embd) / site.n_embd
        self.mix = nn.Parameter(1 - place ** (1 - site.block / max(1, site.depth)) ** 4)
        self.up = site.projection("up", width, site.n_embd)
        self.down = site.projection("down", site.n_embd, width, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        first = torch.zeros_like(x[:, :1]) if use.state is None else use.state["last"].to(x.dtype)
        before = torch.cat([first, x[:, :-1]], 1)
        if use.documents is not None:  # (B, T); a document sees nothing of the one before it
            same = F.pad(use.documents[:, 1:] == use.documents[:, :-1], (1, 0))
            before = before * same[..., None]
        if use.state is not None:
            use.state["last"].copy_(x[:, -1:])
        mixed = torch.lerp(x, before, self.mix.to(x.dtype))
        return self.down(self.up(mixed, use).relu().square(), use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The last token, (B, 1, C)."""
        return {"last": torch.zeros(batch, 1, self.n_embd, device=device, dtype=dtype)}
