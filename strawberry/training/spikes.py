"""Loss spikes: rows of the log whose loss stands far above those before it. Reported, no more."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable

ROWS = 20
"""Rows that a loss is compared with."""

LEAST = 5
"""Rows before which nothing is called a spike."""

DEVIATIONS = 10.0
"""Median absolute deviations above the median that make a spike; about 7 standard deviations."""

SHARE = 0.1
"""And how far above the median it is at least, relative to that: a flat curve has no deviation."""


class SpikeDetector:
    """Compares each logged loss with the median of the rows before it.

    Args:
        losses: the rows that are there already, of a run that is gone on with.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._seen: deque[float] = deque(losses, ROWS)

    def ratio(self, loss: float) -> float | None:
        """The loss as a multiple of the median of the rows before, if it is a spike; else None."""
        before = list(self._seen)
        self._seen.append(loss)
        if len(before) < LEAST:
            return None
        median = statistics.median(before)
        spread = statistics.median(abs(value - median) for value in before)
        if loss - median <= max(DEVIATIONS * spread, SHARE * abs(median)):
            return None
        return loss / median if median else float("inf")
