"""Softmax attention with a growing cache; common to the softmax mixers.

Shapes: q (B, H, T, D); k and v (B, G, S, D) with G key-value heads, H a multiple of G. The T
queries are the last of the S positions: query i is at position S - T + i.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.components.attention import flex
from strawberry.components.attention.scores import Scores
from strawberry.contracts import Place, Site, State, Use
from strawberry.errors import FieldError


def head_width(n_head: int, n_qkv: int) -> int:
    """Width of a head; raises FieldError if the heads don't divide `n_qkv`."""
    if n_head < 1:
        raise FieldError("n_head", f"must be positive, got {n_head}")
    if n_qkv % n_head:
        near = [h for h in range(1, n_qkv + 1) if n_qkv % h == 0]
        best = min(near, key=lambda h: abs(h - n_head))
        raise FieldError(
            "n_head", f"width {n_qkv} can't be split into {n_head} heads; {best} heads would work"
        )
    return n_qkv // n_head


def check_heads(
    site: Site, n_head: int, width: int, places: Iterable[Place], name: str = "n_head"
) -> None:
    """Raises FieldError at `name` if the positional component doesn't support such heads."""
    if site.positional.places & set(places):
        try:
            site.positional.check(n_head, width)
        except ValueError as error:
            raise FieldError(name, str(error)) from error


def new_kv(
    batch: int,
    heads: int,
    length: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    window: int | None = None,
) -> State:
    """State for the keys and values of `length` tokens, or of the last `window` of them."""
    shape = (batch, heads, length if window is None else min(length, window), width)
    return {
        "k": torch.zeros(shape, device=device, dtype=dtype),
        "v": torch.zeros(shape, device=device, dtype=dtype),
    }


def extend_kv(k: Tensor, v: Tensor, use: Use, window: int | None = None) -> tuple[Tensor, Tensor]:
    """The keys and values (B, G, S, D) that the queries may see, from these (B, G, T, D).

    They are those of the cache and these, in order.

    The new ones are written to the cache. With a window the cache is a ring buffer: position p has
    slot p mod size, and keys before the first query's window are left out. In a recursion whose
    steps share keys, a later step takes those of the first.
    """
    if use.shared is not None and use.kept is not None:
        if not use.shared.later:
            use.kept["k"], use.kept["v"] = _extend(k, v, use, window)
        return use.kept["k"], use.kept["v"]
    return _extend(k, v, use, window)


def _extend(k: Tensor, v: Tensor, use: Use, window: int | None) -> tuple[Tensor, Tensor]:
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


def attend(q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
    """Scaled dot-product attention of the last T positions over all S: (B, H, T, D).

    Plain attention uses torch's fused kernels. Other cases use FlexAttention if available. Else a
    window shorter than half the queries is computed in blocks, so that work grows with T * window,
    and the rest with a dense mask. All give the same values.
    """
    k, v = k.to(q.dtype), v.to(q.dtype)
    D, E = q.shape[-1], v.shape[-1]
    if E < D:  # fused kernels want values as wide as keys
        return attend(q, k, F.pad(v, (0, D - E)), scores)[..., :E]
    if D < E:
        scores = replace(scores, scale=scores.scale or D**-0.5)
        return attend(F.pad(q, (0, E - D)), F.pad(k, (0, E - D)), v, scores)
    T, S = q.shape[2], k.shape[2]
    if scores.plain(T, S):
        return _plain(q, k, v, scores)
    if T > 1 and flex.available(q, scores.dropout):
        return flex.attend(q, k, v, scores)
    straight = scores.bias is None and scores.places is None and scores.causal
    if scores.window is not None and straight and 2 * scores.window <= T:
        return _in_blocks(q, k, v, scores, scores.window)
    visible = _visible(q, S, scores)
    return _masked(q, k, v, visible, scores.bias, scores)


def _plain(q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
    """Plain causal attention; for one token, queries of a key head count as tokens of it."""
    T, grouped = q.shape[2], q.shape[1] != k.shape[1]
    alone = grouped and T == 1
    y = F.scaled_dot_product_attention(
        q.reshape(*k.shape[:2], -1, q.shape[-1]) if alone else q,
        k,
        v,
        dropout_p=scores.dropout,
        is_causal=T > 1 and scores.causal,
        scale=scores.scale,
        enable_gqa=grouped and not alone,
    )
    return y.reshape(q.shape) if alone else y


def _visible(q: Tensor, S: int, scores: Scores) -> Tensor:
    """Mask of the keys that each query sees: (T, S), or (B, 1 or H, T, S) if sequences differ."""
    T, window = q.shape[2], scores.window
    key = ("distance", T, S, None if scores.places is None else id(scores.places))
    if key not in scores.memo:
        keys = torch.arange(S, device=q.device)
        own = keys[S - T :, None] if scores.places is None else scores.places[:, None, :, None]
        scores.memo[key] = own - keys, scores.places  # held: its identity is part of the key
    distance: Tensor = scores.memo[key][0]
    visible = distance >= 0 if scores.causal else torch.ones_like(distance, dtype=torch.bool)
    distance = distance if scores.causal else distance.abs()
    if window is not None:
        visible = visible & (distance < window)
    if scores.windows is not None:
        visible = visible & (distance < scores.windows[..., None])
    if scores.documents is not None:
        keys = scores.documents if scores.key_documents is None else scores.key_documents
        visible = visible & (scores.documents[:, None, :, None] == keys[:, None, None, :])
    return visible


def _masked(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, bias: Tensor | None, scores: Scores
) -> Tensor:
    """Attention with a dense mask; a sink is one more key, of zeros."""
    mask = visible
    if bias is not None or scores.sink is not None:
        added = torch.zeros((), dtype=q.dtype, device=q.device) if bias is None else bias
        mask = torch.where(visible, added.to(q.dtype), float("-inf"))
        mask = mask if mask.ndim > 2 else mask[None]
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
    """Distance of each of a block's keys from each of its queries: (window, 2 window)."""
    distance = window + torch.arange(window, device=device)[:, None]
    return distance - torch.arange(2 * window, device=device)


def _visible_in_blocks(
    device: torch.device, n: int, window: int, earlier: int, scores: Scores
) -> Tensor:
    """Mask of a block's 2 * window keys for each of its queries: (1, n, 1, window, 2 window)."""
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
    """Mask of query and key in one document: (B, n, 1, window, 2 window)."""
    after = n * window - documents.shape[1]
    keys = F.pad(documents, (window, after), value=-1).unfold(1, 2 * window, window)
    queries = F.pad(documents, (0, after), value=-1).view(-1, n, window)
    return (queries[..., None] == keys[:, :, None])[:, :, None]
