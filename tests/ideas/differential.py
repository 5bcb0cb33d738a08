"""Differential attention: the difference of two softmaxes (Ye et al. 2024, arXiv 2410.05258)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from strawberry.contracts import Attention, wide
from strawberry.plugin import hookimpl


class Differential(Attention):
    """`(softmax(q_1 k_1) - lambda softmax(q_2 k_2)) v` by head, normalised; eq. 1-3.

    Args:
        n_head: heads; each has two queries and two keys of half its width.
    """

    honours = frozenset(["rotary"])

    def __init__(self, site, *, n_head: int = 2):
        super().__init__()
        C = site.n_embd
        self.n_head, self.half = n_head, C // n_head // 2
        self.start = 0.8 - 0.6 * math.exp(-0.3 * site.block)
        self.qkv = site.projection("qkv", 3 * C, C, parts={"q": C, "k": C, "v": C})
        self.weights = nn.Parameter(0.1 * torch.randn(4, self.half))  # q_1, k_1, q_2, k_2
        self.out = site.projection("out", C, C, output=True)

    def forward(self, x, use):
        B, T, C = x.shape
        q, k, v = self.qkv(x, use).chunk(3, dim=-1)
        q, k = (y.view(B, T, 2 * self.n_head, self.half).transpose(1, 2) for y in (q, k))
        q, k = use.rotate(q), use.rotate(k)
        v = v.view(B, T, self.n_head, -1).transpose(1, 2)
        if use.state is not None:
            end = use.offset + T
            use.state["k"][:, :, use.offset : end] = k
            use.state["v"][:, :, use.offset : end] = v
            k, v = use.state["k"][:, :, :end], use.state["v"][:, :, :end]
        S = k.shape[2]
        seen = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        twice = v.repeat_interleave(2, 1)  # both softmaxes of a head read the same values
        y = F.scaled_dot_product_attention(q, k, twice, attn_mask=seen)
        w = wide(self.weights)
        lam = ((w[0] * w[1]).sum().exp() - (w[2] * w[3]).sum().exp() + self.start).to(y.dtype)
        y = y[:, 0::2] - lam * y[:, 1::2]
        y = (1 - self.start) * F.rms_norm(y, y.shape[-1:])
        return self.out(y.transpose(1, 2).reshape(B, T, C), use)

    def new_state(self, batch, length, device, dtype):
        k, v = (batch, 2 * self.n_head, length, self.half), (batch, self.n_head, length)
        shapes = {"k": k, "v": (*v, 2 * self.half)}
        return {n: torch.zeros(shape, device=device, dtype=dtype) for n, shape in shapes.items()}


@hookimpl
def strawberry_register(registry):
    registry.attention("differential", Differential)
