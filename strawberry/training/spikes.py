"""Loss spikes: rows of the log with a loss far above the previous ones.

They are reported; training does not react to them.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

WINDOW = 20
"""Number of rows that a loss is compared with."""

MIN_ROWS = 5
"""Number of rows before which nothing counts as a spike."""

DEVIATIONS = 10.0
"""Minimum distance of a spike in median absolute deviations; about 7 standard deviations."""

SHARE = 0.1
"""Minimum relative distance from the median, because a flat curve has no deviation."""


class Spike(NamedTuple):
    """A spike, and the median of the rows before it."""

    loss: float
    median: float

    @property
    def rise(self) -> float:
        """The difference from the median."""
        return self.loss - self.median

    def __str__(self) -> str:
        """A sentence; it names a ratio only where the median is positive."""
        if self.median > 0:
            size = f"{self.loss / self.median:.3g} times its recent median {self.median:.4g}"
        else:
            size = f"{self.rise:.4g} above its recent median {self.median:.4g}"
        return f"loss {self.loss:.4g} is {size}"


class SpikeDetector:
    """Compares each logged loss with the median of the rows before it.

    Args:
        losses: existing rows of a resumed run.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._seen: deque[float] = deque(filter(math.isfinite, losses), WINDOW)

    def observe(self, loss: float) -> Spike | None:
        """Add a row's loss; return it as a spike if it is one, else None.

        A loss that isn't finite is never a spike here, nor is one compared with it: the guard
        against such losses reports them.
        """
        if not math.isfinite(loss):
            return None
        before = list(self._seen)
        self._seen.append(loss)
        if len(before) < MIN_ROWS:
            return None
        median = statistics.median(before)
        spread = statistics.median(abs(value - median) for value in before)
        spike = Spike(loss, median)
        return spike if spike.rise > max(DEVIATIONS * spread, SHARE * abs(median)) else None
