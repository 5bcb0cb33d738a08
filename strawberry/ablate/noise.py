"""The noise of a table of cells by seeds, and how large a difference chance makes of it.

A table is a randomised block design: cells are treatments, seeds are blocks. What is left of it
after the means of cells and of seeds knows the noise from all runs together. A cell's variance is
that of its own residuals. Where that is small it is lifted towards the pooled one (Smyth 2004, with
a fixed prior), since a few runs that agree are mostly luck; a large one is never lowered. How large
the largest of all studentised differences gets without any difference is found by Monte Carlo, for
equal noise and for each of `noises`; the worst of them counts, so that unequal noise is no way to a
false finding (a max-T test in the sense of Westfall and Young 1993).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]

PRIOR = 4.0
"""Degrees of freedom of the pooled variance by which a small variance of a cell is lifted."""
RATIO = 2.0
"""The largest ratio of two cells' standard deviations for which the error rate is kept."""
DRAWS = 20_000
"""Tables without a difference that are drawn; the error of a p-value of 0.05 is 0.0015."""
CHANCE = 0.8
"""The chance of finding the smallest difference that is called detectable."""


class Design:
    """Which cells have which seeds, and what is asked of them.

    Args:
        seen: cells x seeds: what has a value. Every seed has two or more.
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
        freedom = np.clip(np.diag(self.residual), 0.0, None)
        self.freedom = np.bincount(cell, freedom, minlength=self.seen.shape[0])
        # A question is answered by the seeds that all of its cells have.
        used = [self.seen[row != 0].all(axis=0) for row in self.contrasts]
        self.counts = np.array([int(u.sum()) for u in used])
        self.means = np.zeros((len(cell), len(used)))
        for column, (row, common) in enumerate(zip(self.contrasts, used, strict=True)):
            self.means[:, column] = row[cell] * common[seed] / max(1, common.sum())
        self._nulls: dict[float, Null] = {}

    def measure(self, values: Numbers) -> tuple[Numbers, Numbers]:
        """Differences, and the variances of these means: (tables, questions) each.

        Args:
            values: tables x observed values, cell by cell.
        """
        squares = (values @ self.residual) ** 2
        by_cell = np.zeros((len(self.seen), len(self.cell)))
        by_cell[self.cell, np.arange(len(self.cell))] = 1.0
        sums = squares @ by_cell.T
        pooled = sums.sum(axis=1, keepdims=True) / max(self.freedom.sum(), 1e-9)
        own = sums / np.maximum(self.freedom, 1e-9)
        # A small variance of a few runs is mostly luck and is lifted; a large one is never lowered.
        variances = np.maximum(own, (PRIOR * pooled + sums) / (PRIOR + self.freedom))
        return values @ self.means, variances @ (self.contrasts**2).T / np.maximum(1, self.counts)

    def null(self, ratio: float = RATIO) -> Null:
        """What chance makes of this design; drawn once."""
        if ratio not in self._nulls:
            self._nulls[ratio] = Null(self, ratio)
        return self._nulls[ratio]

    def noises(self, ratio: float) -> Iterator[tuple[Numbers, Numbers]]:
        """Deviations of the cells, and how strongly each takes part in what a seed does.

        Equal; one, half or all but one noisier than the others; cells that grow with the block.
        """
        cells = len(self.seen)
        none = np.zeros(cells)
        yield np.ones(cells), none
        if ratio <= 1:
            return
        fewest = int(self.seen.sum(axis=1).argmin())
        groups = [np.arange(cells) == one for one in dict.fromkeys([0, cells - 1, fewest])]
        groups += [np.arange(cells) % 2 == 1]
        groups += [row > 0 for row in self.contrasts if (row > 0).sum() > 1]
        known = {group.tobytes(): group for one in groups for group in (one, ~one)}
        for factor in (math.sqrt(ratio), ratio):
            yield np.ones(cells), np.linspace(0, factor, cells)
            for group in known.values():
                if group.any() and not group.all():
                    yield np.where(group, factor, 1.0), none


@functools.lru_cache(maxsize=32)
def design(seen: tuple[tuple[bool, ...], ...], contrasts: tuple[tuple[float, ...], ...]) -> Design:
    """The design; equal ones are made, and drawn, once."""
    return Design(seen, contrasts)


class Null:
    """Studentised differences of tables without any, for each of the design's noises."""

    def __init__(self, of: Design, ratio: float) -> None:
        rng = np.random.default_rng(0)
        normal = rng.standard_normal((DRAWS, len(of.cell)))
        block = rng.standard_normal((DRAWS, of.seen.shape[1]))[:, of.seed]
        largest, single = [], []
        for deviations, scaling in of.noises(ratio):
            drawn = normal * deviations[of.cell] + block * scaling[of.cell]
            difference, variance = of.measure(drawn)
            statistic = np.abs(difference) / np.sqrt(np.maximum(variance, 1e-300))
            largest.append(np.sort(statistic.max(axis=1)))
            single.append(np.sort(statistic, axis=0).T)
            if len(largest) == 1:
                self.equal = difference, np.sqrt(variance)
        self.largest = np.stack(largest)
        self.single = np.stack(single)
        self._detectable: dict[tuple[int, float], float] = {}

    def corrected(self, statistic: float) -> float:
        """The chance that any question's statistic is that large, with the worst noise."""
        return _chance(self.largest, statistic)

    def p(self, question: int, statistic: float) -> float:
        """The chance that this question's statistic is that large, with the worst noise."""
        return _chance(self.single[:, question], statistic)

    def critical(self, alpha: float) -> float:
        """What a statistic has to exceed so that `corrected` is at most `alpha`."""
        place = math.floor(alpha * (DRAWS + 1) + 1e-9) - 1
        return math.inf if place < 0 else float(self.largest[:, DRAWS - 1 - place].max())

    def detectable(self, question: int, alpha: float) -> float:
        """The difference that is found with a chance of 80 %, in deviations of an equal noise."""
        if (question, alpha) not in self._detectable:
            critical = self.critical(alpha)
            difference, error = (part[:, question] for part in self.equal)
            detectable = math.inf
            if math.isfinite(critical):
                detectable = float(np.quantile(critical * error - difference, CHANCE))
            self._detectable[question, alpha] = detectable
        return self._detectable[question, alpha]


def _chance(of: NDArray[np.floating], statistic: float) -> float:
    """The share of draws, rows apart and sorted, that are that large; of the row with the most."""
    below = min(int(np.searchsorted(row, statistic, side="left")) for row in of)
    return (DRAWS - below + 1) / (DRAWS + 1)


def granularity(differences: Sequence[float]) -> float:
    """The step in which differences come: 1/160 for an accuracy of 160 answers, about 0 for a loss.

    That is their greatest common divisor, to a millionth of the largest.
    """
    sizes = sorted(abs(d) for d in differences if d)
    least = 1e-6 * sizes[-1] if sizes else 0.0
    step = 0.0
    for size in sizes:
        rest = size
        while rest > least:
            step, rest = rest, abs(math.remainder(step, rest))
    return step
