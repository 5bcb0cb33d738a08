"""RWKV-7's time mix, token by token (Peng et al. 2025, arXiv 2503.14456, section 4.1)."""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class TimeMix(Attention):
    """`S_t = S_{t-1} (diag(w_t) - k_t^T (a_t k_t)) + v_t^T k'_t`, read by r_t; full-rank gates.

    Args:
        n_head: heads.
    """

    def __init__(self, site, *, n_head: int = 4):
        super().__init__()
        C = site.n_embd
        self.n_head = n_head
        self.shift = nn.Parameter(torch.full((6, C), 0.5))  # of r, w, k, v, a, g
        self.into = nn.ModuleList(site.projection(name, C, C) for name in "rwkvag")
        self.decay = nn.Parameter(torch.linspace(-4.0, 0.0, C))
        self.bonus = nn.Parameter(torch.zeros(C))
        self.out = site.projection("out", C, C, output=True)

    def forward(self, x, use):
        (B, T, C), H, state = x.shape, self.n_head, use.state
        last = torch.zeros_like(x[:, :1]) if state is None else state["last"].to(x.dtype)
        before = torch.cat([last, x[:, :-1]], 1)
        mixed = [torch.lerp(x, before, share.to(x.dtype)) for share in self.shift]
        r, w, k, v, a, g = (p(m, use) for p, m in zip(self.into, mixed, strict=True))
        w = torch.exp(-0.606531 * torch.sigmoid(self.decay.to(w.dtype) + w.tanh()))
        a, g = a.sigmoid(), g.sigmoid()
        r, w, k, v, a = (y.view(B, T, H, -1) for y in (r, w, k, v, a))
        key, k = F.normalize(k, dim=-1), k * a
        S = v.new_zeros(B, H, C // H, C // H) if state is None else state["S"].to(v.dtype)
        ys = []
        for t in range(T):
            removed = torch.einsum("bhvk,bhk->bhv", S, key[:, t])
            S = S * w[:, t, :, None] - removed[..., None] * (a * key)[:, t, :, None]
            S = S + v[:, t, ..., None] * k[:, t, :, None]
            ys.append(torch.einsum("bhvk,bhk->bhv", S, r[:, t]))
        y = F.rms_norm(torch.stack(ys, 1), (C // H,))
        y = y + (r * self.bonus.view(H, -1).to(k.dtype) * k).sum(-1, keepdim=True) * v
        if state is not None:
            state["S"].copy_(S)
            state["last"].copy_(x[:, -1:])
        return self.out(y.reshape(B, T, C) * g, use)

    def new_state(self, batch, length, device, dtype):
        C, H = self.decay.numel(), self.n_head
        shapes = {"S": (H, C // H, C // H), "last": (1, C)}
        return {n: torch.zeros(batch, *s, device=device, dtype=dtype) for n, s in shapes.items()}


@hookimpl
def strawberry_register(registry):
    registry.attention("time_mix", TimeMix)
