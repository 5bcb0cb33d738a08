"""Decoding caches of a batch whose rows may be padded on the left."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class StrawberryCache:
    """The cache of a batch: one for all rows, or one for each row if some are padded.

    Args:
        length: the most tokens that it holds.
    """

    is_compileable = False
    is_linear = (False,)

    def __init__(self, length: int) -> None:
        self.length = length
        self._caches: list[Any] = []
        self._tokens = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens so far, padding included."""
        return self._tokens

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """The most tokens that it holds."""
        return self.length

    def run(self, model: Any, ids: Tensor, padding: Sequence[int]) -> Tensor:
        """Hidden states (B, T, C) of further ids (B, T); raises ValueError if there is no room."""
        B, T = ids.shape
        if self._tokens + T > self.length:
            raise ValueError(
                f"{self._tokens + T} tokens exceed the cache's {self.length}; generate with a "
                "larger max_length, or begin with a StrawberryCache of that length"
            )
        if not self._caches:
            rows = [1] * B if any(padding) else [B]
            self._caches = [model.new_cache(count, self.length) for count in rows]
        if len(self._caches) == 1:
            hidden, _ = model.trunk(ids, self._caches[0])
        else:
            hidden = self._by_row(model, ids, padding)
        self._tokens += T
        return hidden

    def _by_row(self, model: Any, ids: Tensor, padding: Sequence[int]) -> Tensor:
        B, T = ids.shape
        rows = []
        for row, cache in enumerate(self._caches):
            begin = max(0, padding[row] - self._tokens)
            shown = ids[row : row + 1, begin:]
            hidden = model.trunk(shown, cache)[0] if begin < T else None
            rows.append((begin, hidden))
        first = next(hidden for _, hidden in rows if hidden is not None)
        out = first.new_zeros(B, T, first.shape[-1])
        for row, (begin, hidden) in enumerate(rows):
            if hidden is not None:
                out[row, begin:] = hidden[0]
        return out

    def reorder_cache(self, beam_idx: Tensor) -> StrawberryCache:
        """Keep the rows of these numbers, (B,), in this order, as beam search asks."""
        if len(self._caches) == 1:
            self._caches[0].reorder(beam_idx)
        elif self._caches:
            chosen = [copy.copy(self._caches[row]) for row in beam_idx.tolist()]
            every = torch.zeros(1, dtype=torch.int64)
            for cache in chosen:
                cache.reorder(every)  # a copy of the states: two beams may come of one
            self._caches = chosen
        return self

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, side by side."""
        rows = len(self._caches) if len(self._caches) != 1 else None
        if rows is None:
            self._caches[0].repeat(repeats)
        else:
            self.reorder_cache(torch.arange(rows).repeat_interleave(repeats))

    def crop(self, max_length: int) -> None:
        """Raises ValueError: a state of a recurrence can't be cut back."""
        raise ValueError("the cache of a recipe's model can't be cut back")


def left_padding(mask: Tensor | None, length: int, *, causal: bool) -> list[int]:
    """Padding at the beginning of each row, of a mask (B, length) with 0 for padding.

    Raises ValueError if it stands in the middle of a row, or at the end of one whose outputs depend
    on later tokens.
    """
    if mask is None or mask.ndim != 2 or bool(mask.all()):
        return [] if mask is None else [0] * len(mask)
    if mask.shape[1] != length:
        raise ValueError(f"attention_mask has {mask.shape[1]} positions, but there are {length}")
    padding = []
    for row in mask.tolist():
        begin = row.index(1) if 1 in row else 0
        end = length - row[::-1].index(1) if 1 in row else 0
        if 0 in row[begin:end]:
            raise ValueError("attention_mask: padding in the middle of a sequence can't be hidden")
        if end < length and not causal:
            raise ValueError("attention_mask: outputs of this model depend on padding at the end")
        padding.append(begin)
    return padding
