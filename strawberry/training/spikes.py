"""Loss spikes: rows of the log with a loss far above the previous ones; only reported."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable

ROWS = 20
"""Number of rows that a loss is compared with."""

LEAST = 5
"""Number of rows before which nothing counts as a spike."""

DEVIATIONS = 10.0
"""Minimum distance of a spike in median absolute deviations; about 7 standard deviations."""

SHARE = 0.1
"""Minimum relative distance from the median, because a flat curve has no deviation."""


class SpikeDetector:
    """Compares each logged loss with the median of the rows before it.

    Args:
        losses: existing rows of a resumed run.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._seen: deque[float] = deque(losses, ROWS)

    def ratio(self, loss: float) -> float | None:
        """The loss as a multiple of the median of previous rows, if it is a spike; else None."""
        before = list(self._seen)
        self._seen.append(loss)
        if len(before) < LEAST:
            return None
        median = statistics.median(before)
        spread = statistics.median(abs(value - median) for value in before)
        if loss - median <= max(DEVIATIONS * spread, SHARE * abs(median)):
            return None
        return loss / median if median else float("inf")
