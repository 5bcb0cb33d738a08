"""Taking some tokens of each sequence, and putting back what is computed of them."""

from __future__ import annotations

from torch import Tensor

from strawberry.contracts import State


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
