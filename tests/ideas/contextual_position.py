"""Contextual position encoding (Golovneva et al. 2024, CoPE, arXiv 2405.18719)."""

import torch
from torch import nn

from strawberry.contracts import Positional, wide
from strawberry.plugin import hookimpl


class Contextual(Positional):
    """The position of key j for query i is `sum_{j <= r <= i} sigmoid(q_i k_r)`: it counts.

    Each position up to `most` has a vector for each head, between which is interpolated.

    Args:
        most: the farthest position.
    """

    places = frozenset(["context"])

    def __init__(self, site, *, most: int = 16):
        super().__init__()
        self.most, self.width = most, site.n_embd
        self.vectors = nn.Parameter(torch.zeros(most + 1, site.n_embd))

    def check(self, n_head, width):
        if n_head * width != self.width:
            raise ValueError(f"contextual needs heads of width {self.width // n_head}, got {width}")

    def relate(self, q, k, own, use):
        H, D = q.shape[1], q.shape[3]
        scaled, every = q * D**-0.5, k.repeat_interleave(H // k.shape[1], 1)
        seen = torch.arange(k.shape[2], device=k.device) <= own[..., None]
        gates = wide(scaled @ every.mT).sigmoid() * (seen if own.ndim == 1 else seen[:, None])
        place = gates.flip(-1).cumsum(-1).flip(-1).clamp(max=self.most)
        vectors = self.vectors.to(q.dtype).view(-1, H, D).permute(1, 2, 0)
        score, low = wide(scaled @ vectors), place.floor()  # (B, H, T, most + 1)
        near, far = score.gather(-1, low.long()), score.gather(-1, place.ceil().long())
        return q, k, torch.lerp(near, far, place - low).to(q.dtype)


@hookimpl
def strawberry_register(registry):
    registry.positional("contextual", Contextual)
