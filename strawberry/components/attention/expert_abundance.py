"""The Expert Abundance: attention whose output head is a SwiGLU mini-FFN.

The plain form, as the seed project's code has it (there called TheExpertAbundance): Q, K, V ->
rotation -> QK-norm -> scaled dot-product attention -> heads side by side -> SwiGLU mini-FFN ->
output projection; the residual is the block's.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from strawberry.components.attention.gated_head import GatedHead
from strawberry.components.attention.softmax import attend, extend_kv, head_width, new_kv
from strawberry.components.norm.rmsnorm import unit_rms
from strawberry.errors import FieldError
from strawberry.model.contracts import Attention, Place, Site, State, Use


class ExpertAbundance(Attention):
    """Softmax attention with QK-norm, and a SwiGLU mini-FFN over the concatenated heads.

    The rows of the QKV matrix are `[q_h | k_h | v_h]` for each head h, as in the seed's code;
    with a shared weight source that order is part of the model.

    Args:
        n_head: heads H.
        n_qkv: width of all heads together; None takes `n_embd`.
        n_ffn: hidden width of the mini-FFN; None takes `n_embd`.
        qk_eps: added to the mean square in the QK-norm, which has no gain.
    """

    honours: ClassVar[frozenset[Place]] = frozenset({"rotary", "bias"})

    def __init__(
        self,
        site: Site,
        *,
        n_head: int = 4,
        n_qkv: int | None = None,
        n_ffn: int | None = None,
        qk_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        width = n_qkv if n_qkv is not None else site.n_embd
        self.n_head = n_head
        self.width = head_width(n_head, width)
        if "rotary" in site.positional.places and self.width % 2:
            raise FieldError("n_head", f"rope needs an even head width, not {self.width}")
        self.dropout = site.dropout
        self.qk_eps = qk_eps
        self.qkv = site.projection("qkv", 3 * width, site.n_embd)
        self.head = GatedHead(site, width, n_ffn)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, _ = x.shape
        per_head = self.qkv(x, use).view(B, T, self.n_head, 3 * self.width).transpose(1, 2)
        q, k, v = per_head.chunk(3, dim=-1)
        # A rotation keeps the mean square, so this is the norm after the rotation too.
        q, k = unit_rms(q, self.qk_eps), unit_rms(k, self.qk_eps)
        k, v = extend_kv(use.rotate(k), v, use)
        bias = use.bias(self.n_head, k.shape[2])
        y = attend(use.rotate(q), k, v, bias, self.dropout if self.training else 0.0)
        return self.head(y.transpose(1, 2).reshape(B, T, -1), use)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Keys and values: 2 * n_qkv numbers a token."""
        return new_kv(batch, self.n_head, length, self.width, device, dtype)
