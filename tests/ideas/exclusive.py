"""Exclusive self-attention: a token's output has nothing of its own value (Zhai 2026).

arXiv 2603.09078, eq. 3: `z = y - (y . v) v / |v|^2` by head.
"""

import torch
from torch.nn import functional as F

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class Exclusive(Attention):
    """Softmax attention whose heads' outputs are made orthogonal to the token's own values.

    Args:
        n_head: heads.
    """

    honours = frozenset(["rotary"])
    rewinds = True

    def __init__(self, site, *, n_head: int = 4):
        super().__init__()
        C = site.n_embd
        self.n_head, self.width = n_head, C // n_head
        self.qkv = site.projection("qkv", 3 * C, C, parts={"q": C, "k": C, "v": C})
        self.out = site.projection("out", C, C, output=True)

    def forward(self, x, use):
        B, T, C = x.shape
        q, k, v = self.qkv(x, use).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        q, k, own = use.rotate(q), use.rotate(k), F.normalize(v, dim=-1)  # (B, H, T, D)
        if use.state is not None:
            end = use.offset + T
            use.state["k"][:, :, use.offset : end] = k
            use.state["v"][:, :, use.offset : end] = v
            k, v = use.state["k"][:, :, :end], use.state["v"][:, :, :end]
        S = k.shape[2]
        seen = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        y = y - (y * own).sum(-1, keepdim=True) * own
        return self.out(y.transpose(1, 2).reshape(B, T, C), use)

    def new_state(self, batch, length, device, dtype):
        shape = (batch, self.n_head, length, self.width)
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("k", "v")}


@hookimpl
def strawberry_register(registry):
    registry.attention("exclusive", Exclusive)
