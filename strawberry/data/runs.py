"""Runs of ids, and how many of them make a copy: what `overlap` and `near` look for."""

from __future__ import annotations

import functools
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


@functools.lru_cache(maxsize=4)
def _powers(base: np.uint64, count: int) -> npt.NDArray[np.uint64]:
    """The first powers of an odd number modulo 2^64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)
