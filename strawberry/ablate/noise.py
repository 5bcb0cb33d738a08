"""The noise of a table of cells by seeds, and what it says of differences.

A table is a randomised block design: cells are treatments, seeds are blocks. The residuals after
cell and seed means estimate the noise from all runs together. A cell's variance is solved from
these residuals, each of which contains a part of the other cells' noise (Grubbs 1948). A small
variance is raised towards the pooled one (Smyth 2004, with a fixed prior), because a few runs that
agree are mostly luck. A large variance is never lowered. If earlier questions of a campaign
measured the noise (`Prior`), it is raised towards theirs instead. A noisy baseline moves all
differences at once. A difference therefore counts in full only where it also stands out among those
from the same baseline. `null` computes how large these statistics get by chance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]

PRIOR = 2.5
"""Degrees of freedom of the pooled variance, towards which small variances are raised."""
SHARED = 1.6
"""Factor on a difference that all cells share with this one."""
APART = 0.7
"""Weight of the statistic against the other differences, relative to that against the baseline."""
RATIO = 4.0
"""Largest ratio of two cells' standard deviations for which the error rate holds."""
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior knowledge of cells' noise (Smyth 2004).

    Attributes:
        variance: variance of a run.
        freedom: its weight in degrees of freedom; the fewer, the more cells differ.
    """

    variance: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A design's statistics in each table; all arrays are (tables, questions).

    Attributes:
        difference: the estimated difference.
        error: its standard error.
        middle: the median of the other differences from the same baseline.
        apart: standard error of the difference from `middle`; 0 without other differences.
    """

    difference: Numbers
    error: Numbers
    middle: Numbers
    apart: Numbers

    @property
    def doubt(self) -> Numbers:
        """Factor on the error: from 1 to `SHARED`, larger if all cells differ by as much."""
        size = np.abs(self.difference) / np.maximum(self.error, TINY)
        away = (self.difference - self.middle) * np.sign(self.difference)
        alone = APART * away / np.maximum(self.apart, TINY)
        shared = np.clip(size / np.maximum(alone, TINY), 1.0, SHARED)
        return np.where((self.apart > 0) & (size > 0), shared, 1.0)

    @property
    def statistic(self) -> Numbers:
        """The difference in units of its error, after doubt."""
        ratio: Numbers = np.abs(self.difference) / np.maximum(self.error * self.doubt, TINY)
        return ratio

    def needed(self, critical: float) -> Numbers:
        """The amount to add to a difference for its statistic to reach a critical value."""
        full = critical * self.error - self.difference
        apart = critical * self.apart / APART + self.middle - self.difference
        least = np.minimum(np.maximum(full, apart), full + (SHARED - 1) * critical * self.error)
        return np.where(self.apart > 0, least, full)


class Design:
    """The seeds of each cell, and the questions about the cells.

    Args:
        seen: cells x seeds; True where there is a value. Every seed has at least two.
        contrasts: questions x cells: weights that sum to 0.
    """

    def __init__(
        self, seen: tuple[tuple[bool, ...], ...], contrasts: tuple[tuple[float, ...], ...]
    ) -> None:
        self.seen = np.asarray(seen, dtype=bool)
        self.contrasts = np.asarray(contrasts, dtype=np.float64)
        cell, seed = np.nonzero(self.seen)
        self.cell, self.seed = cell, seed
        dummies = np.hstack([np.eye(self.seen.shape[0])[cell], np.eye(self.seen.shape[1])[seed]])
        residual = np.eye(len(cell)) - dummies @ np.linalg.pinv(dummies)
        self.residual = (residual + residual.T) / 2
        self.freedom = float(np.trace(self.residual))
        # Sums of squares of a cell's residuals expect these parts of all cells' variances.
        self.of_cell = np.eye(len(self.seen))[:, cell]
        parts = self.of_cell @ self.residual**2 @ self.of_cell.T
        self.solution = np.linalg.pinv(parts, rcond=1e-9, hermitian=True)
        own = np.diag(self.solution)
        self.own_freedom = np.where(own > 1e-9, 1 / np.maximum(own, 1e-9), 0.0)
        # A question is answered by the seeds that all of its cells have.
        used = [self.seen[row != 0].all(axis=0) for row in self.contrasts]
        self.counts = np.array([int(u.sum()) for u in used])
        self.means = np.zeros((len(cell), len(used)))
        for column, (row, common) in enumerate(zip(self.contrasts, used, strict=True)):
            self.means[:, column] = row[cell] * common[seed] / max(1, common.sum())
        groups: dict[bytes, list[int]] = {}
        for question, row in enumerate(self.contrasts):
            groups.setdefault(np.minimum(row, 0).tobytes(), []).append(question)
        self.groups = [np.array(group) for group in groups.values() if len(group) > 1]
        """Questions whose differences involve the same cells."""

    def measure(
        self, values: Numbers, prior: Prior | None = None, *, step: Numbers | float = 0.0
    ) -> Measured:
        """Statistics of the questions.

        Args:
            values: tables x observed values, cell by cell.
            prior: knowledge of the noise beyond these values.
            step: resolution of the metric, for each table or for all. It is the smallest error of a
                difference of two cells: a difference of one step may be rounding.
        """
        squares = (values @ self.residual) ** 2
        sums = squares @ self.of_cell.T
        pooled = sums.sum(axis=1, keepdims=True) / max(self.freedom, 1e-9)
        own = np.maximum(sums @ self.solution, 0.0)
        # A small variance of a few runs is mostly luck and is lifted; a large one is never lowered.
        weight, towards = (PRIOR, pooled) if prior is None else (prior.freedom, prior.variance)
        lifted = (weight * towards + own * self.own_freedom) / (weight + self.own_freedom)
        variances = np.maximum(own, lifted)
        difference = values @ self.means
        middle, apart = np.zeros_like(difference), np.zeros_like(difference)
        least = np.reshape(np.square(step), (-1, 1))
        for group in self.groups:
            for place, question in enumerate(group):
                others = difference[:, np.delete(group, place)]
                middle[:, question] = np.median(others, axis=1)
            apart[:, group] = self._error(variances, np.maximum(self.contrasts, 0), least)[:, group]
        return Measured(difference, self._error(variances, self.contrasts, least), middle, apart)

    def _error(self, variances: Numbers, weights: Numbers, least: Numbers) -> Numbers:
        """Standard errors of weighted sums of cell means."""
        squares = (weights**2).T
        variance = variances @ squares / np.maximum(1, self.counts)
        error: Numbers = np.sqrt(np.maximum(variance, least * squares.sum(axis=0) / 2))
        return error


@functools.lru_cache(maxsize=32)
def design(seen: tuple[tuple[bool, ...], ...], contrasts: tuple[tuple[float, ...], ...]) -> Design:
    """The design; equal designs are built and sampled once."""
    return Design(seen, contrasts)


def granularity(differences: Sequence[float]) -> float:
    """The resolution of differences: 1/160 for an accuracy of 160 answers, about 0 for a loss.

    It is their greatest common divisor, to a millionth of the largest.
    """
    sizes = sorted(abs(d) for d in differences if d)
    least = 1e-6 * sizes[-1] if sizes else 0.0
    step = 0.0
    for size in sizes:
        rest = size
        while rest > least:
            step, rest = rest, abs(math.remainder(step, rest))
    return step
