"""Runs of ids, and how many of them make a copy: what `overlap` and `near` look for."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

RUN: Final = 13
"""Ids of a run."""
NEAR: Final = 0.8
"""The share of a window's runs from which on it is a near copy."""
MOST: Final = 30_000_000
"""Training ids that are looked through, from the split's beginning."""
BASE: Final = np.uint64(0x9E3779B97F4A7C15)
PIECE: Final = 1 << 16
"""Training ids that are looked through at a time: few enough for a processor's cache."""
_BITS: Final = 20
_INVERSE: Final = np.uint64(pow(int(BASE), -1, 1 << 64))


def runs(ids: npt.NDArray[Any], length: int = RUN) -> npt.NDArray[np.uint64]:
    """A hash of each run of this many ids: a polynomial with mixed terms.

    It is the difference of two sums from the beginning, so that long runs cost as much as short.
    """
    count = ids.size - length + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    wide = ids.astype(np.uint64)
    wide = (wide ^ (wide >> np.uint64(7))) * BASE + np.uint64(1)
    wide ^= wide >> np.uint64(29)
    sums = np.zeros(ids.size + 1, np.uint64)
    np.cumsum(wide * _powers(BASE, ids.size), out=sums[1:])
    total = (sums[length:] - sums[:count]) * _powers(_INVERSE, count)
    return total ^ (total >> np.uint64(32))


class Sought:
    """Hashes of runs that are looked for, and which of them have been seen.

    Most hashes of a training text are none of these. A table of their last bits rules them out,
    which takes a tenth of the time of a binary search.
    """

    def __init__(self, rows: Iterable[npt.NDArray[np.uint64]]) -> None:
        self._hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *rows]))
        self._seen = np.zeros(self._hashes.size, bool)
        self._possible = np.zeros(1 << _BITS, bool)
        self._possible[self._last_bits(self._hashes)] = True

    def see(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Note those of these hashes that are looked for."""
        hashes = hashes[self._possible[self._last_bits(hashes)]]
        if hashes.size:
            at = self._places(hashes)
            self._seen[at[self._hashes[at] == hashes]] = True

    def share(self, row: npt.NDArray[np.uint64]) -> float:
        """The share of the hashes of a row that have been seen; it is one of the constructor's."""
        return float(self._seen[self._places(row)].mean())

    def _places(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._hashes, hashes).clip(max=self._hashes.size - 1)

    @staticmethod
    def _last_bits(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        return (hashes & np.uint64((1 << _BITS) - 1)).view(np.int64)


def _powers(base: np.uint64, count: int) -> npt.NDArray[np.uint64]:
    """The first powers of an odd number modulo 2^64."""
    return _table(base, max(1, count - 1).bit_length())[:count]


@functools.lru_cache(maxsize=8)
def _table(base: np.uint64, bits: int) -> npt.NDArray[np.uint64]:
    powers = np.full(1 << bits, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)
