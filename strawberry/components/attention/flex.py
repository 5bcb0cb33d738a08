"""Causal attention with modified scores, by torch's FlexAttention (CUDA).

It computes only the blocks of scores that a mask leaves, and saves none of them. torch.compile
generates its kernels. On a CPU they have no backward pass, so other forms are used there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from strawberry.components.attention.scores import Scores


def available(q: Tensor, dropout: float) -> bool:
    """Return whether FlexAttention supports these queries: no dropout, and no odd widths.

    Only on CUDA: its kernels are Triton's, and were never tried on other devices here.
    """
    width = q.shape[-1]
    return q.is_cuda and not dropout and width >= 16 and width & (width - 1) == 0


@functools.cache
def _kernel() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    kernel: Callable[..., Any] | None = None,
) -> Tensor:
    """(B, H, T, D), as `softmax.attend`; `kernel` replaces the compiled `flex_attention`."""
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask

    T, S = q.shape[2], k.shape[2]
    window, windows, documents = scores.window, scores.windows, scores.documents
    bias, places, causal = scores.bias, scores.places, scores.causal
    key_documents = documents if scores.key_documents is None else scores.key_documents

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        own = i + (S - T) if places is None else places[b, i]
        far = own - j if causal else (own - j).abs()
        seen = far >= 0
        if window is not None:
            seen = seen & (far < window)
        if windows is not None:
            seen = seen & (far < windows[b, h, i])
        if documents is not None and key_documents is not None:
            seen = seen & (documents[b, i] == key_documents[b, j])
        return seen

    def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        assert bias is not None
        return score + (bias[h, i, j] if bias.ndim == 3 else bias[b, h, i, j])

    differ = [tensor for tensor in (documents, windows, places) if tensor is not None]
    key = ("block mask", T, S, window, causal, *map(id, differ))
    if key not in scores.memo:
        batch = q.shape[0] if differ else None
        heads = q.shape[1] if windows is not None else None
        mask = create_block_mask(visible, batch, heads, T, S, device=str(q.device))
        scores.memo[key] = mask, differ  # held: their identities are the key
    aux = None if scores.sink is None else AuxRequest(lse=True)
    output = (kernel or _kernel())(
        q,
        k,
        v,
        score_mod=None if bias is None else biased,
        block_mask=scores.memo[key][0],
        scale=scores.scale,
        enable_gqa=q.shape[1] != k.shape[1],
        return_aux=aux,
    )
    if scores.sink is None:
        out: Tensor = output
        return out
    # One more key with score s and value 0: y * sum(e^l) / (sum(e^l) + e^s).
    y, extra = output
    return y * torch.sigmoid(extra.lse - scores.sink[:, None])[..., None].to(y.dtype)
