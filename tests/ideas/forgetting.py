"""Forgetting attention: a learned decay of scores (Lin et al. 2025, arXiv 2503.02130, eq. 7-9)."""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class Forgetting(Attention):
    """Scores of token s for query t have `sum_{s < l <= t} log sigmoid(w . x_l + b)` added.

    Args:
        n_head: heads.
    """

    honours = frozenset(["rotary"])

    def __init__(self, site, *, n_head: int = 4):
        super().__init__()
        C = site.n_embd
        self.n_head, self.width = n_head, C // n_head
        self.qkv = site.projection("qkv", 3 * C, C, parts={"q": C, "k": C, "v": C})
        self.forget = nn.Linear(C, n_head)
        self.out = site.projection("out", C, C, output=True)

    def forward(self, x, use):
        B, T, C = x.shape
        q, k, v = self.qkv(x, use).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        q, k = use.rotate(q), use.rotate(k)  # (B, H, T, D)
        gone = F.logsigmoid(self.forget(x).to(torch.promote_types(x.dtype, torch.float32)))
        gone = gone.transpose(1, 2).cumsum(-1)  # (B, H, T)
        if use.state is not None:
            end = use.offset + T
            if use.offset:
                gone = gone + use.state["gone"][:, :, use.offset - 1, None].to(gone.dtype)
            for name, new in (("k", k), ("v", v), ("gone", gone)):
                use.state[name][:, :, use.offset : end] = new
            k, v = use.state["k"][:, :, :end], use.state["v"][:, :, :end]
            every = use.state["gone"][:, :, :end].to(gone.dtype)
        else:
            every = gone
        S = k.shape[2]
        seen = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        bias = (gone[..., None] - every[..., None, :]).masked_fill(~seen, -torch.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.out(y.transpose(1, 2).reshape(B, T, C), use)

    def new_state(self, batch, length, device, dtype):
        shape = (batch, self.n_head, length, self.width)
        state = {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("k", "v")}
        wide = torch.promote_types(dtype, torch.float32)
        return {**state, "gone": torch.zeros(shape[:3], device=device, dtype=wide)}


@hookimpl
def strawberry_register(registry):
    registry.attention("forgetting", Forgetting)
