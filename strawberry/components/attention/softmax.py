"""Causal softmax attention over a cache that grows: what the softmax mixers share.

Shapes: q (B, H, T, D); k and v (B, G, T, D) with G key-value heads, H a multiple of G.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.errors import FieldError
from strawberry.model.contracts import State, Use


def head_width(n_head: int, n_qkv: int) -> int:
    """Width of a head; raises FieldError where the heads don't divide `n_qkv`."""
    if n_head < 1:
        raise FieldError("n_head", f"{n_head} is not a positive number of heads")
    if n_qkv % n_head:
        near = [h for h in range(1, n_qkv + 1) if n_qkv % h == 0]
        best = min(near, key=lambda h: abs(h - n_head))
        raise FieldError(
            "n_head", f"width {n_qkv} can't be split into {n_head} heads; {best} heads would do"
        )
    return n_qkv // n_head


def new_kv(
    batch: int, heads: int, length: int, width: int, device: torch.device, dtype: torch.dtype
) -> State:
    """Room for `length` keys and values of each head."""
    shape = (batch, heads, length, width)
    return {
        "k": torch.zeros(shape, device=device, dtype=dtype),
        "v": torch.zeros(shape, device=device, dtype=dtype),
    }


def extend_kv(k: Tensor, v: Tensor, use: Use) -> tuple[Tensor, Tensor]:
    """All keys and values up to now: those of the cache, and these, which are written to it."""
    if use.state is None:
        return k, v
    end = use.offset + k.shape[2]
    use.state["k"][:, :, use.offset : end] = k
    use.state["v"][:, :, use.offset : end] = v
    return use.state["k"][:, :, :end], use.state["v"][:, :, :end]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """Causal scaled dot-product attention of the last T positions over all S: (B, H, T, D).

    `bias` (H, T, S) is added to the scores. With T < S the mask is aligned at the end: the last
    query sees every key, which torch's own `is_causal` does not do.
    """
    T, S = q.shape[2], k.shape[2]
    grouped = q.shape[1] != k.shape[1]
    mask: Tensor | None = None
    if bias is not None or 1 < T < S:
        visible = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        if bias is None:
            mask = visible
        else:
            mask = bias.masked_fill(~visible, float("-inf")).to(q.dtype)[None]
    return F.scaled_dot_product_attention(
        q,
        k.to(q.dtype),
        v.to(q.dtype),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and T == S and T > 1,
        enable_gqa=grouped,
    )
