"""Value residual: every block's values are mixed with the first block's (Zhou et al. 2024).

arXiv 2410.17897, eq. 5, with a learned share.
"""

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Attention
from strawberry.plugin import hookimpl


class ValueResidual(Attention):
    """Softmax attention over `(1 - a) v + a v_1`, where v_1 are the first block's values.

    Args:
        n_head: heads.
    """

    honours = frozenset(["rotary"])
    routable = False  # the first block's values are of all tokens

    def __init__(self, site, *, n_head: int = 4):
        super().__init__()
        C = site.n_embd
        self.n_head, self.width = n_head, C // n_head
        self.first = site.block == 0
        self.qkv = site.projection("qkv", 3 * C, C, parts={"q": C, "k": C, "v": C})
        self.share = None if self.first else nn.Parameter(torch.full((1,), 0.5))
        self.out = site.projection("out", C, C, output=True)

    def forward(self, x, use):
        B, T, C = x.shape
        q, k, v = self.qkv(x, use).view(B, T, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        q, k = use.rotate(q), use.rotate(k)  # (B, H, T, D)
        if self.first:
            use.memo["value_residual"] = v
        elif "value_residual" in use.memo:
            v = torch.lerp(v, use.memo["value_residual"], self.share.to(v.dtype))
        if use.state is not None:
            end = use.offset + T
            use.state["k"][:, :, use.offset : end] = k
            use.state["v"][:, :, use.offset : end] = v
            k, v = use.state["k"][:, :, :end], use.state["v"][:, :, :end]
        seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - T)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).reshape(B, T, C), use)

    def new_state(self, batch, length, device, dtype):
        shape = (batch, self.n_head, length, self.width)
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("k", "v")}


@hookimpl
def strawberry_register(registry):
    registry.attention("value_residual", ValueResidual)
