"""A gated look at the token before (modded-nanogpt, Jordan et al. 2025: "smear")."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from strawberry.contracts import EmbeddingSite, State, Use, WrappedEmbedding
from strawberry.plugin import Kind


class SmearedEmbedding(WrappedEmbedding):
    """`x_t + g_t x_(t-1)`, with a gate g_t = sigmoid(w x_t + b) of the first channels of x_t.

    Args:
        base: the embedding x of tokens.
        channels: number of channels that the gate reads; at most the width.
        start: b at the start.
    """

    def __init__(
        self,
        site: EmbeddingSite,
        *,
        base: Annotated[Any, Kind("embedding")] = "tokens",
        channels: Annotated[int, Ge(1)] = 12,
        start: float = -4.0,
    ) -> None:
        super().__init__(site.component(base))
        self.n_embd = site.n_embd
        self.channels = min(channels, site.n_embd)
        self.weight = nn.Parameter(torch.zeros(self.channels))
        self.bias = nn.Parameter(torch.full((1,), start))

    def forward(self, ids: Tensor, use: Use) -> Tensor:
        """(B, T) -> (B, T, C)."""
        x = self.base(ids, use)
        before = torch.zeros_like(x[:, :1])
        if use.state is not None:
            before = use.state["smear"].to(x.dtype).clone()
            use.state["smear"].copy_(x[:, -1:])
        last = torch.cat([before, x[:, :-1]], 1)
        if use.documents is not None:
            same = use.documents[:, 1:] == use.documents[:, :-1]
            last = last.where(nn.functional.pad(same, (1, 0), value=False)[..., None], 0.0)
        own = x[..., : self.channels]
        gate = torch.sigmoid((own * self.weight.to(x.dtype)).sum(-1, keepdim=True) + self.bias)
        return x + gate.to(x.dtype) * last

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """The base's, and the vector of the last token."""
        last = torch.zeros(batch, 1, self.n_embd, device=device, dtype=dtype)
        return {**super().new_state(batch, length, device, dtype), "smear": last}
