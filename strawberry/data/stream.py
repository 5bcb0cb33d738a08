"""Read several arrays of ids (the shards of a split) as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view


class IdStream:
    """One-dimensional arrays of ids, concatenated.

    Args:
        parts: the arrays, of any integer types; they are not copied (memory-mapped, for example).
    """

    def __init__(self, parts: Sequence[npt.NDArray[Any]]) -> None:
        self.parts = [part for part in parts if part.size]
        ends = np.cumsum([0, *(part.size for part in self.parts)], dtype=np.int64)
        self._begins = ends[:-1]
        self.size = int(ends[-1])

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        """Rows (len(starts), length) of consecutive ids; each must end within the stream."""
        if len(self.parts) == 1:
            return sliding_window_view(self.parts[0], length)[starts]
        rows = np.empty((len(starts), length), np.int64)
        for row, start in zip(rows, starts.tolist(), strict=True):
            index = int(np.searchsorted(self._begins, start, side="right")) - 1
            at, filled = start - int(self._begins[index]), 0
            while filled < length:
                piece = self.parts[index][at : at + length - filled]
                row[filled : filled + piece.size] = piece
                filled, index, at = filled + piece.size, index + 1, 0
        return rows

    def split(self, at: int) -> tuple[IdStream, IdStream]:
        """The first `at` ids, and the rest."""
        first: list[npt.NDArray[Any]] = []
        second: list[npt.NDArray[Any]] = []
        for begin, part in zip(self._begins.tolist(), self.parts, strict=True):
            cut = min(max(at - begin, 0), part.size)
            first.append(part[:cut])
            second.append(part[cut:])
        return IdStream(first), IdStream(second)
