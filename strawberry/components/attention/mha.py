"""Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762, eq. 1) with grouped queries.

Grouped-query attention: Ainslie et al. 2023, arXiv 2305.13245. QK-norm: Henry et al. 2020, arXiv
2010.04245, here as root-mean-square normalisation of each head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from strawberry.components.attention.softmax import attend, extend_kv, head_width, new_kv
from strawberry.errors import FieldError
from strawberry.model.contracts import Attention, Place, Site, State, Use


class MultiHeadAttention(Attention):
    """`softmax(q k^T / sqrt(D)) v` for each head, causal, by torch's fused attention.

    Args:
        n_head: query heads H.
        n_kv_head: key and value heads; None takes `n_head`, 1 is multi-query attention.
        n_qkv: width of all query heads together; None takes `n_embd`.
        qk_norm: normalise queries and keys over each head with the recipe's norm, before they are
            rotated.
    """

    honours: ClassVar[frozenset[Place]] = frozenset({"rotary", "bias"})

    def __init__(
        self,
        site: Site,
        *,
        n_head: int = 4,
        n_kv_head: int | None = None,
        n_qkv: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        width = n_qkv if n_qkv is not None else site.n_embd
        self.n_head = n_head
        self.width = head_width(n_head, width)
        self.n_kv_head = n_kv_head if n_kv_head is not None else n_head
        if self.n_kv_head < 1 or n_head % self.n_kv_head:
            raise FieldError(
                "n_kv_head", f"{n_head} query heads can't share {self.n_kv_head} key-value heads"
            )
        if "rotary" in site.positional.places and self.width % 2:
            raise FieldError("n_head", f"rope needs an even head width, not {self.width}")
        self.dropout = site.dropout
        self.heads = (n_head, self.n_kv_head, self.n_kv_head)
        self.qkv = site.projection("qkv", sum(self.heads) * self.width, site.n_embd)
        self.q_norm = site.norm(self.width) if qk_norm else None
        self.k_norm = site.norm(self.width) if qk_norm else None
        self.out = site.projection("out", site.n_embd, width, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, _ = x.shape
        heads = self.qkv(x, use).view(B, T, -1, self.width).transpose(1, 2)
        q, k, v = heads.split(self.heads, dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        k, v = extend_kv(use.rotate(k), v, use)
        bias = use.bias(self.n_head, k.shape[2])
        y = attend(use.rotate(q), k, v, bias, self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).reshape(B, T, -1), use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values: 2 * n_kv_head * D numbers a token."""
        return new_kv(batch, self.n_kv_head, length, self.width, device, dtype)
