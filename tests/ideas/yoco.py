"""Keys and values that half of the blocks share (Sun et al. 2024, YOCO, arXiv 2405.05254, sec. 2).

The first half looks back a window; the first block after it makes keys and values for all others.
"""

import torch
from torch.nn import functional as F

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class Yoco(Attention):
    """A window in the first half of the blocks, shared keys and values in the second.

    Args:
        n_head: heads.
        window: tokens that a token of the first half sees, itself among them.
    """

    honours = frozenset(["rotary"])
    routable = False  # the shared keys are of all tokens
    same_cost = False

    def __init__(self, site, *, n_head: int = 4, window: int = 8):
        super().__init__()
        C, self.H, half = site.n_embd, n_head, site.depth // 2
        self.shares, self.window, self.C = site.block >= half, window, C
        self.q, self.out = site.projection("q", C, C), site.projection("out", C, C, output=True)
        self.kv = site.projection("kv", 2 * C, C) if site.block <= half else None

    def forward(self, x, use):
        B, T, C = x.shape
        q = use.rotate(self.q(x, use).view(B, T, self.H, -1).transpose(1, 2))
        if not self.shares or "yoco" not in use.memo:
            k, v = self.kv(x, use).view(B, T, 2, self.H, -1).permute(2, 0, 3, 1, 4)
            k = use.rotate(k)
            if use.state is not None:
                end = use.offset + T
                use.state["k"][:, :, use.offset : end] = k
                use.state["v"][:, :, use.offset : end] = v
                k, v = use.state["k"][:, :, :end], use.state["v"][:, :, :end]
            if self.shares:
                use.memo["yoco"] = k, v
        else:
            k, v = use.memo["yoco"]
        place = torch.arange(k.shape[2], device=x.device)
        distance = place[-T:, None] - place
        seen = (distance >= 0) & (distance < (k.shape[2] if self.shares else self.window))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).reshape(B, T, C), use)

    def new_state(self, batch, length, device, dtype):
        shape = (batch, self.H, length if self.kv else 0, self.C // self.H)
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("k", "v")}


@hookimpl
def strawberry_register(registry):
    registry.attention("yoco", Yoco)
