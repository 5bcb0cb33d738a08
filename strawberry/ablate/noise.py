"""The noise of a table of cells by seeds, and how large a difference chance makes of it.

A table is a randomised block design: cells are treatments, seeds are blocks. What is left of it
after the means of cells and of seeds knows the noise from all runs together. A cell's variance is
that of its own residuals. Where that is small it is lifted towards the pooled one (Smyth 2004, with
a fixed prior), since a few runs that agree are mostly luck; a large one is never lowered. How large
the largest of all studentised differences gets without any difference is found by Monte Carlo, for
equal noise and for each of `noises`; the worst of them counts, so that unequal noise is no way to a
false finding (a max-T test in the sense of Westfall and Young 1993).

Chances of less than `RARE` are not counted but computed: given the variances a difference is
normal, so that its chance is the mean of normal tails over the draws, and that of any question at
most their sum. Below `FAR` they fall by the power of the statistic by which they fall there; a t
distribution falls faster.

Where earlier questions of a campaign have measured the noise (`Prior`), a cell's variance is lifted
towards theirs instead, and tables are drawn whose cells are as unlike as theirs were.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strawberry.ablate.extra import needs

Numbers: TypeAlias = NDArray[np.float64]

PRIOR = 4.0
"""Degrees of freedom of the pooled variance by which a small variance of a cell is lifted."""
RATIO = 2.0
"""The largest ratio of two cells' standard deviations for which the error rate is kept."""
DRAWS = 20_000
"""Tables without a difference that are drawn; the error of a p-value of 0.05 is 0.0015."""
CHANCE = 0.8
"""The chance of finding the smallest difference that is called detectable."""
RARE = 0.0025
"""Chances below this are computed: too few draws are that large to be counted."""
FAR = 1e-4
"""Chances below this are extrapolated: too few draws have variances that small."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of cells' noise beforehand (Smyth 2004).

    Attributes:
        variance: of a run.
        freedom: how much it counts, in degrees of freedom; the fewer, the more cells differ.
    """

    variance: float
    freedom: float


class _Noise(NamedTuple):
    """A noise that tables are drawn with.

    Attributes:
        deviations: of the cells; or tables x cells.
        scaling: how strongly each takes part in what a seed does.
    """

    deviations: Numbers
    scaling: Numbers


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
        self._nulls: dict[float | Prior, Null] = {}

    def measure(self, values: Numbers, prior: Prior | None = None) -> tuple[Numbers, Numbers]:
        """Differences, and the variances of these means: (tables, questions) each.

        Args:
            values: tables x observed values, cell by cell.
            prior: what is known of the noise beside these values.
        """
        squares = (values @ self.residual) ** 2
        by_cell = np.zeros((len(self.seen), len(self.cell)))
        by_cell[self.cell, np.arange(len(self.cell))] = 1.0
        sums = squares @ by_cell.T
        pooled = sums.sum(axis=1, keepdims=True) / max(self.freedom.sum(), 1e-9)
        own = sums / np.maximum(self.freedom, 1e-9)
        # A small variance of a few runs is mostly luck and is lifted; a large one is never lowered.
        weight, towards = (PRIOR, pooled) if prior is None else (prior.freedom, prior.variance)
        variances = np.maximum(own, (weight * towards + sums) / (weight + self.freedom))
        return values @ self.means, variances @ (self.contrasts**2).T / np.maximum(1, self.counts)

    def null(self, ratio: float = RATIO, prior: Prior | None = None) -> Null:
        """What chance makes of this design; drawn once.

        Args:
            ratio: the largest of two cells' deviations.
            prior: what is known of the noise; then the ratio is not used.
        """
        of = ratio if prior is None else Prior(1.0, prior.freedom)
        if of not in self._nulls:
            self._nulls[of] = Null(self, of)
        return self._nulls[of]

    def noises(self, ratio: float) -> Iterator[_Noise]:
        """Equal noise; one, half or all but one cell noisier; cells that grow with the block."""
        cells = len(self.seen)
        none = np.zeros(cells)
        yield _Noise(np.ones(cells), none)
        if ratio <= 1:
            return
        fewest = int(self.seen.sum(axis=1).argmin())
        groups = [np.arange(cells) == one for one in dict.fromkeys([0, cells - 1, fewest])]
        groups += [np.arange(cells) % 2 == 1]
        groups += [row > 0 for row in self.contrasts if (row > 0).sum() > 1]
        known = {group.tobytes(): group for one in groups for group in (one, ~one)}
        for factor in (math.sqrt(ratio), ratio):
            yield _Noise(np.ones(cells), np.linspace(0, factor, cells))
            for group in known.values():
                if group.any() and not group.all():
                    yield _Noise(np.where(group, factor, 1.0), none)


@functools.lru_cache(maxsize=32)
def design(seen: tuple[tuple[bool, ...], ...], contrasts: tuple[tuple[float, ...], ...]) -> Design:
    """The design; equal ones are made, and drawn, once."""
    return Design(seen, contrasts)


class Null:
    """Studentised differences of tables without any, for each noise that is to be feared.

    Args:
        design: whose tables.
        of: the ratio of `Design.noises`; or what is known of the noise, in units of its variance.
    """

    def __init__(self, design: Design, of: float | Prior) -> None:
        rng = np.random.default_rng(0)
        normal = rng.standard_normal((DRAWS, len(design.cell)))
        block = rng.standard_normal((DRAWS, design.seen.shape[1]))[:, design.seed]
        prior = of if isinstance(of, Prior) else None
        if prior is None:
            assert not isinstance(of, Prior)
            noises = list(design.noises(of))
        else:
            shape = (DRAWS, len(design.seen))
            unlike = np.sqrt(prior.freedom / rng.chisquare(prior.freedom, shape))
            noises = [_Noise(unlike, np.zeros(len(design.seen)))]
        largest, single = [], []
        self._errors: list[Numbers] = []
        for noise in noises:
            own = noise.deviations[..., design.cell]
            difference, variance = design.measure(
                normal * own + block * noise.scaling[design.cell], prior
            )
            error = np.sqrt(np.maximum(variance, 1e-300))
            found = np.abs(difference) / error
            largest.append(np.sort(found.max(axis=1)))
            single.append(np.sort(found, axis=0).T)
            if not self._errors:
                self.equal = difference, np.sqrt(variance)
            self._errors.append(error / _deviation(design, own, noise.scaling))
        self.largest = np.stack(largest)
        self.single = np.stack(single)
        self._detectable: dict[tuple[int, float], float] = {}

    def corrected(self, statistic: float) -> float:
        """The chance that any question's statistic is that large, with the worst noise."""
        counted = _chance(self.largest, statistic)
        return counted if counted >= RARE else min(RARE, self._rare(statistic))

    def p(self, question: int, statistic: float) -> float:
        """The chance that this question's statistic is that large, with the worst noise."""
        counted = _chance(self.single[:, question], statistic)
        return counted if counted >= RARE else min(RARE, self._rare(statistic, question))

    def critical(self, alpha: float) -> float:
        """What a statistic has to exceed so that `corrected` is at most `alpha`."""
        if alpha >= RARE:
            place = math.floor(alpha * (DRAWS + 1) + 1e-9) - 1
            return float(self.largest[:, DRAWS - 1 - place].max())
        if alpha >= FAR:
            return self._solved(alpha)
        last, power = self._far
        return last * (FAR / alpha) ** (1 / power) if alpha > 0 else math.inf

    @functools.cached_property
    def _far(self) -> tuple[float, float]:
        """The statistic whose chance is `FAR`, and by which power of it chances fall from there."""
        last, before = self._solved(FAR), self._solved(2 * FAR)
        return last, math.log(2) / math.log(last / before)

    def _solved(self, alpha: float) -> float:
        """`critical` of a chance that is too small to be counted."""
        low = self.critical(RARE)

        def excess(scale: float) -> float:
            chance = min(RARE, float(self._tail(low * math.exp(scale)).sum(axis=1).max()))
            return math.log(max(chance, 1e-300) / alpha)

        high = 1.0
        while excess(high) > 0:
            high *= 2
        found = needs("scipy.optimize").brentq(excess, 0.0, high, xtol=1e-4)
        return low * math.exp(found)

    def _rare(self, statistic: float, question: int | None = None) -> float:
        """A small chance: of one question, or of any; see `corrected`."""
        last, power = self._far
        tail = self._tail(min(statistic, last))
        chance = tail.sum(axis=1) if question is None else tail[:, question]
        return float(chance.max()) * min(1.0, last / statistic) ** power

    def _tail(self, statistic: float) -> Numbers:
        """The chance of so large a statistic by noise and question, given each draw's variances."""
        erfc = needs("scipy.special").erfc
        return np.stack([
            erfc(statistic * error / math.sqrt(2)).mean(axis=0) for error in self._errors
        ])  # fmt: skip

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


def _deviation(design: Design, own: Numbers, scaling: Numbers) -> Numbers:
    """The true deviation of each question's difference: (questions,) or (tables, questions).

    Args:
        design: whose questions.
        own: deviations of the values; or tables x values.
        scaling: how strongly each cell takes part in what a seed does.
    """
    seeds = np.eye(design.seen.shape[1])[design.seed]  # values x seeds
    shared = seeds.T @ (design.means * scaling[design.cell][:, None])
    found: Numbers = np.sqrt(own**2 @ design.means**2 + (shared**2).sum(axis=0))
    return found


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
