"""Causal softmax attention over a cache that grows: what the softmax mixers share.

Shapes: q (B, H, T, D); k and v (B, G, S, D) with G key-value heads, H a multiple of G. The T
queries are the last of the S positions: query i stands at position S - T + i.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.components.attention import flex
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
    batch: int,
    heads: int,
    length: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    window: int | None = None,
) -> State:
    """Room for the keys and values of `length` tokens, or of the last `window` of them."""
    shape = (batch, heads, length if window is None else min(length, window), width)
    return {
        "k": torch.zeros(shape, device=device, dtype=dtype),
        "v": torch.zeros(shape, device=device, dtype=dtype),
    }


def extend_kv(k: Tensor, v: Tensor, use: Use, window: int | None = None) -> tuple[Tensor, Tensor]:
    """The keys and values that the queries may see: those of the cache and these, in order.

    These are written to the cache. With a window the cache is a ring: position p has slot
    p mod size, and what the first of the queries can't see any more is left out.
    """
    if use.state is None:
        return k, v
    if window is not None:
        return _extend_ring(k, v, use.state, use.offset)
    end = use.offset + k.shape[2]
    use.state["k"][:, :, use.offset : end] = k
    use.state["v"][:, :, use.offset : end] = v
    return use.state["k"][:, :, :end], use.state["v"][:, :, :end]


def _extend_ring(k: Tensor, v: Tensor, state: State, offset: int) -> tuple[Tensor, Tensor]:
    size, T = state["k"].shape[2], k.shape[2]
    earlier = torch.arange(max(0, offset - size + 1), offset, device=k.device) % size
    written = torch.arange(max(0, T - size), T, device=k.device)
    slots = (written + offset) % size
    whole = []
    for name, new in (("k", k), ("v", v)):
        ring = state[name]
        before = ring.index_select(2, earlier)
        ring.index_copy_(2, slots, new.index_select(2, written).to(ring.dtype))
        whole.append(torch.cat((before, new.to(ring.dtype)), dim=2))
    return whole[0], whole[1]


@dataclass(frozen=True, slots=True)
class Scores:
    """What is done to the scores of a causal attention.

    Attributes:
        bias: added to them, (H, T, S); None for nothing.
        window: how many tokens a query sees, itself among them; None for all.
        windows: the same for each query by itself, (B, H, T), at most `window`; or None.
        documents: the document of each token, (B, T), where only tokens of the same one see each
            other; needs T = S.
        sink: the score of a key that is always there and whose value is zero, (H,).
        scale: what the products of queries and keys are multiplied by; None for D^-0.5.
        dropout: probability of dropping a weight.
        memo: where a mask that several blocks need is kept for the pass.
    """

    bias: Tensor | None = None
    window: int | None = None
    windows: Tensor | None = None
    documents: Tensor | None = None
    sink: Tensor | None = None
    scale: float | None = None
    dropout: float = 0.0
    memo: dict[Any, Any] = field(default_factory=dict)

    def plain(self, T: int, S: int) -> bool:
        """Whether causality is all there is to it."""
        windowed = self.window is not None and self.window < S
        changed = (self.bias, self.windows, self.documents, self.sink)
        return T in {1, S} and not windowed and all(one is None for one in changed)


def attend(q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
    """Causal scaled dot-product attention of the last T positions over all S: (B, H, T, D).

    Plain attention goes to torch's fused kernels. Anything else goes to FlexAttention where that
    is available, else a window shorter than half the queries is computed in blocks, so that work
    grows with T * window, and the rest with a dense mask. All give the same values.
    """
    k, v = k.to(q.dtype), v.to(q.dtype)
    T, S = q.shape[2], k.shape[2]
    grouped = q.shape[1] != k.shape[1]
    if scores.plain(T, S):
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=scores.dropout,
            is_causal=T == S and T > 1,
            scale=scores.scale,
            enable_gqa=grouped,
        )
    if T > 1 and flex.available(q, scores.dropout):
        return flex.attend(q, k, v, scores)
    if scores.window is not None and scores.bias is None and 2 * scores.window <= T:
        return _in_blocks(q, k, v, scores, scores.window)
    visible = _visible(q, S, scores)
    return _masked(q, k, v, visible, scores.bias, scores)


def _visible(q: Tensor, S: int, scores: Scores) -> Tensor:
    """Which key each query sees: (T, S), or (B, 1 or H, T, S) where sequences differ."""
    T = q.shape[2]
    key = ("visible", T, S, scores.window)
    if key not in scores.memo:
        ones = torch.ones(T, S, dtype=torch.bool, device=q.device)
        seen = ones.tril(S - T)
        scores.memo[key] = seen if scores.window is None else seen.triu(S - T - scores.window + 1)
    visible: Tensor = scores.memo[key]
    if scores.documents is not None:
        documents = scores.documents
        visible = visible & (documents[:, None, :, None] == documents[:, None, None, :])
    if scores.windows is not None:
        place = torch.arange(S, device=q.device)
        distance = place[S - T :, None] - place
        visible = visible & (distance < scores.windows[..., None])
    return visible


def _masked(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, bias: Tensor | None, scores: Scores
) -> Tensor:
    """Attention with a mask that is written out; a sink is one more key, of zeros."""
    mask = visible
    if bias is not None or scores.sink is not None:
        added = torch.zeros((), dtype=q.dtype, device=q.device) if bias is None else bias[None]
        mask = torch.where(visible, added.to(q.dtype), float("-inf"))
    if scores.sink is not None:
        k, v = F.pad(k, (0, 0, 1, 0)), F.pad(v, (0, 0, 1, 0))
        mask = mask.expand(*mask.shape[:-3], q.shape[1], *mask.shape[-2:])
        sink = scores.sink.to(q.dtype)[:, None, None].expand(*mask.shape[:-1], 1)
        mask = torch.cat((sink, mask), dim=-1)
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=scores.dropout,
        scale=scores.scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def _in_blocks(q: Tensor, k: Tensor, v: Tensor, scores: Scores, window: int) -> Tensor:
    """A window's attention, a block of `window` queries over the 2 * window keys it can see."""
    B, H, T, D = q.shape
    G, S = k.shape[1], k.shape[2]
    n = -(-T // window)
    after, before = n * window - T, window - (S - T)
    # Keys: exactly `window` before the first query, of which some may not exist.
    k, v = (F.pad(x, (0, 0, before, after)).unfold(2, 2 * window, window) for x in (k, v))
    k, v = (x.permute(0, 2, 1, 4, 3).reshape(B * n, G, 2 * window, -1) for x in (k, v))
    q = F.pad(q, (0, 0, 0, after)).view(B, H, n, window, D).transpose(1, 2).flatten(0, 1)
    visible = _visible_in_blocks(q.device, n, window, S - T, scores)  # (B or 1, n, H or 1, ...)
    if scores.documents is not None:
        visible = visible & _same_in_blocks(scores.documents, n, window)
    if scores.windows is not None:
        own = F.pad(scores.windows, (0, after), value=window).view(B, H, n, window)
        visible = visible & (_distance_in_blocks(q.device, window) < own.transpose(1, 2)[..., None])
    visible = visible.expand(B, *visible.shape[1:]).flatten(0, 1)
    y = _masked(q, k, v, visible, None, scores)
    return y.view(B, n, H, window, -1).transpose(1, 2).flatten(2, 3)[:, :, :T]


def _distance_in_blocks(device: torch.device, window: int) -> Tensor:
    """How far back each of a block's keys is from each of its queries: (window, 2 window)."""
    distance = window + torch.arange(window, device=device)[:, None]
    return distance - torch.arange(2 * window, device=device)


def _visible_in_blocks(
    device: torch.device, n: int, window: int, earlier: int, scores: Scores
) -> Tensor:
    """Which of a block's 2 * window keys each of its queries sees: (1, n, 1, window, 2 window)."""
    key = ("visible in blocks", n, window, earlier)
    if key not in scores.memo:
        distance = _distance_in_blocks(device, window)
        seen = (distance >= 0) & (distance < window)
        place = torch.arange(n, device=device)[:, None] * window - window
        exists = place + torch.arange(2 * window, device=device) >= -earlier
        scores.memo[key] = (seen & exists[:, None])[None, :, None]
    visible: Tensor = scores.memo[key]
    return visible


def _same_in_blocks(documents: Tensor, n: int, window: int) -> Tensor:
    """Whether query and key are of one document: (B, n, 1, window, 2 window)."""
    after = n * window - documents.shape[1]
    keys = F.pad(documents, (window, after), value=-1).unfold(1, 2 * window, window)
    queries = F.pad(documents, (0, after), value=-1).view(-1, n, window)
    return (queries[..., None] == keys[:, :, None])[:, :, None]
