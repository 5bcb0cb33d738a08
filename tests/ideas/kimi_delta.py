"""Kimi delta attention, token by token (Kimi Team 2025, arXiv 2510.26692, section 3, eq. 1 and 10).

`S_t = (I - b k k^T) Diag(a) S_(t-1) + b k v^T`, `o = S^T q`; without the short convolutions.
"""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class KimiDelta(Attention):
    """Linear attention by the delta rule, whose state forgets each channel by itself.

    Args:
        n_head: heads.
    """

    def __init__(self, site, *, n_head: int = 4):
        super().__init__()
        C, self.H, self.D = site.n_embd, n_head, site.n_embd // n_head
        self.qkv = site.projection("qkv", 3 * C, C, parts={"q": C, "k": C, "v": C})
        self.b = site.projection("b", n_head, C)
        self.low, self.up = site.projection("low", 2 * self.D, C), nn.ModuleDict()
        for name in ("decay", "gate"):
            self.up[name] = site.projection(name, C, self.D)
        self.rate, self.bias = nn.Parameter(torch.zeros(n_head, 1)), nn.Parameter(torch.zeros(C))
        self.norm = site.norm(self.D)
        self.out = site.projection("out", C, C, output=True)

    def forward(self, x, use):
        B, T, C = x.shape
        q, k, v = F.silu(self.qkv(x, use)).view(B, T, 3, self.H, self.D).unbind(2)
        q, k = F.normalize(q, dim=-1) * self.D**-0.5, F.normalize(k, dim=-1)
        b = self.b(x, use).sigmoid()[..., None]  # (B, T, H, 1)
        low = self.low(x, use).chunk(2, -1)
        decay, gate = (f(y, use) for f, y in zip(self.up.values(), low, strict=True))
        step = F.softplus(decay + self.bias.to(x.dtype)).view(B, T, self.H, self.D)
        a = torch.exp(-self.rate.exp().to(x.dtype) * step)
        S = x.new_zeros(B, self.H, self.D, self.D) if use.state is None else use.state["S"].to(x)
        every = []
        for t in range(T):
            S = a[:, t, ..., None] * S
            read = torch.einsum("bhk,bhkv->bhv", k[:, t], S)
            S = S + torch.einsum("bhk,bhv->bhkv", k[:, t], b[:, t] * (v[:, t] - read))
            every.append(torch.einsum("bhk,bhkv->bhv", q[:, t], S))
        if use.state is not None:
            use.state["S"] = S
        y = self.norm(torch.stack(every, 1)).reshape(B, T, C) * gate.sigmoid()
        return self.out(y, use)

    def new_state(self, batch, length, device, dtype):
        return {"S": torch.zeros(batch, self.H, self.D, self.D, device=device, dtype=dtype)}


@hookimpl
def strawberry_register(registry):
    registry.attention("kimi_delta", KimiDelta)
