"""Taking some tokens of each sequence, and putting back what is computed of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from strawberry.contracts import Router, SharedKeys, State, Stream, Use, all_reduce_max


@dataclass(frozen=True, slots=True)
class Active:
    """The tokens that still recur.

    Attributes:
        places: their indices in the sequence, (B, K).
        carried: the router's values of them.
        real: (B, K), False for padding; None without padding.
    """

    places: Tensor
    carried: State
    real: Tensor | None


def chosen(go: Tensor, size: int | None, *, together: bool) -> Active | None:
    """The tokens with `go` (B, K), or None if there are none.

    Args:
        go: mask of the tokens.
        size: how many of each sequence go, if known; otherwise the host waits to read it.
        together: whether ranks take the same length, for they exchange numbers in the steps; a
            sequence is filled up to the longest on any rank.
    """
    counts = go.sum(1, keepdim=True)
    fixed = size is not None
    if size is None:
        size = all_reduce_max(counts.max()) if together else int(counts.max())
    if size == 0:
        return None
    order = (~go).to(torch.int8).argsort(dim=1, stable=True)[:, :size]
    real = None if fixed else torch.arange(size, device=go.device) < counts
    return Active(order, {}, real)


def gather(x: Tensor, places: Tensor) -> Tensor:
    """The tokens of (B, T, ...) at (B, K): (B, K, ...)."""
    index = places.view(*places.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(-1, -1, *x.shape[2:]))


def row_of(positions: Tensor, row: int) -> Tensor:
    """The positions of one sequence: (T,), or (1, T) where sequences differ."""
    return positions if positions.ndim == 1 else positions[row : row + 1]


def put_back(whole: State, part: State, row: int) -> None:
    """Write assigned (not written in place) tensors to a state, for one of its sequences."""
    for name, tensor in part.items():
        kept = whole[name][row : row + 1]
        if kept.data_ptr() != tensor.data_ptr():
            kept.copy_(tensor)


def merged(
    stream: Stream, before: Stream, after: Stream, active: Active, router: Router, step: int
) -> Stream:
    """The stream, each of its tensors, once the tokens that ran a step are put back."""

    def merge(x: Tensor, y: Tensor) -> Tensor:
        # A router knows tokens of one width: (B, K, ...) is (B, K, C) to it.
        return router.merge(x.flatten(2), y.flatten(2), step, active.carried).view_as(y)

    return replaced(stream, before, tree_map(merge, before, after), active)


def replaced(stream: Stream, before: Stream, after: Stream, active: Active) -> Stream:
    """The stream, each of its tensors, with `after` in the place of the tokens `before`."""

    def put(whole: Tensor, x: Tensor, new: Tensor) -> Tensor:
        if active.real is not None:
            real = active.real.view(*active.real.shape, *[1] * (new.ndim - 2))
            new = torch.where(real, new, x)
        where = active.places.view(*active.places.shape, *[1] * (new.ndim - 2))
        return whole.scatter(1, where.expand_as(new), new.to(whole.dtype))

    return tree_map(put, stream, before, after)


def share_of(active: Active, tokens: int) -> Tensor:
    """The share of all tokens that run a step."""
    if active.real is None:
        share = active.places.numel() / tokens
        return torch.full((), share, device=active.places.device)
    return active.real.sum() / tokens


def sharing(
    use: Use,
    store: dict[int, State],
    slot: int,
    active: Active,
    first: tuple[Active, Use],
    length: int,
) -> Use:
    """The use with the keys of the first step: its store, and the indices of these tokens."""
    began, there = first
    B, T0 = began.places.shape
    if active is began:
        return replace(use, shared=SharedKeys(store, slot, False, T0, documents=use.documents))
    order = torch.arange(T0, device=began.places.device).expand(B, T0)
    place_of = order.new_zeros(B, length).scatter(1, began.places, order)
    places = place_of.gather(1, active.places)
    shared = SharedKeys(store, slot, True, T0, places, there.documents)
    return replace(use, shared=shared, key_positions=there.key_positions)
