"""Chunks that the data decide (Hwang et al. 2025, H-Net, arXiv 2507.07955, section 2.2)."""

import torch
from torch.nn import functional as F

from strawberry.contracts import Loop, Term
from strawberry.plugin import hookimpl


class Chunked(Loop):
    """`x_t + z_t`; `z_t = (1 - p_t) z_(t-1) + p_t f(x)_t` where a chunk begins, else `z_(t-1)`.

    A chunk begins where a token differs from the one before; f runs on such tokens alone.

    Args:
        length: mean tokens of a chunk, which a loss aims at.
        weight: of that loss.
    """

    tokens = "renumbered"
    exact = exact_gradient = separates = False
    parameter_kinds = {"router": "router"}
    by_micro_batch = ("weight",)
    waits = "the data decide how many chunks there are"

    def __init__(self, site, *, length: float = 4.0, weight: float = 0.03):
        super().__init__()
        self.length, self.weight, self.C = length, weight, site.n_embd
        self.router = torch.nn.Parameter(torch.eye(site.n_embd).repeat(2, 1))

    def forward(self, x, use, inner):
        B, T, C = x.shape
        before, last = (x.new_zeros(B, 1, C) if use.state is None else use.state[n] for n in "kz")
        q, k = F.linear(x, self.router.to(x.dtype)).chunk(2, -1)
        keys, z = torch.cat([before.to(x.dtype), k], 1), [last.to(x.dtype)]
        p = (1 - F.cosine_similarity(q, keys[:, :-1], dim=-1)) / 2
        p = p.masked_fill(use.offset + torch.arange(T, device=x.device) == 0, 1.0)
        go, result, aux = p >= 0.5, x, ()
        for step in range(inner.steps):
            result, more = inner.some(result, use, go, step)
            aux += more
        for t in range(T):
            z.append(torch.where(go, p, 0)[:, t, None, None] * (result[:, t, None] - z[-1]) + z[-1])
        if use.state is not None:
            use.state["k"].copy_(k[:, -1:]), use.state["z"].copy_(z[-1])
        sure, share, N = torch.where(go, p, 1 - p)[..., None], go.to(p.dtype).mean(), self.length
        ratio = N * share * p.mean() + N / (N - 1) * (1 - share) * (1 - p.mean())
        terms = (Term("chunk_share", share), Term("chunk_ratio", ratio, self.weight))
        return x + (sure + (1 - sure).detach()) * torch.cat(z[1:], 1), (*aux, *terms)

    def shares(self, steps):
        return (1 / self.length,) * steps

    def new_state(self, batch, length, device, dtype):
        return {n: torch.zeros(batch, 1, self.C, device=device, dtype=dtype) for n in "kz"}


@hookimpl
def strawberry_register(registry):
    registry.loop("chunked", Chunked)
