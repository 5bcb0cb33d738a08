"""The distribution of differences under the null hypothesis.

The largest statistic of a table is sampled by Monte Carlo, for equal noise and for each of
`noises`. The worst of them counts, so unequal noise can't cause a false finding (a max-T test in
the sense of Westfall and Young 1993). If earlier questions of a campaign measured the noise, cells
of the sampled tables differ as much as theirs did.

Probabilities below `RARE` are computed, not counted. Given the variances, a difference is normal,
so its tail probability is at most the mean of normal tails over the draws. That of any question is
at most their sum. Below `FAR` the tail is extrapolated by its power law at `FAR`; a t distribution
falls faster.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from strawberry.ablate.extra import needs
from strawberry.ablate.noise import RATIO, Design, Numbers, Prior

DRAWS = 20_000
"""Number of sampled tables; the standard error of a p-value of 0.05 is 0.0015."""
SCALED = 0.01
"""Probability at which the statistics of questions are brought to one scale."""
CHANCE = 0.8
"""The power at which a difference is called detectable."""
RARE = 0.0025
"""Probabilities below this are computed, because too few draws exceed them."""
FAR = 1e-4
"""Probabilities below this are extrapolated, because too few draws have small variances."""


class _Noise(NamedTuple):
    """The noise of sampled tables.

    Attributes:
        deviations: of the cells, or tables x cells.
        scaling: sensitivity of each cell to a seed's effect.
    """

    deviations: Numbers
    scaling: Numbers


class Null:
    """Statistics of tables without any difference, for each noise considered.

    A question whose cells have fewer runs has a wider statistic. It is rescaled to the others
    first, so it doesn't set the critical value of all.

    Args:
        design: design of the tables.
        of: the ratio for `noises`, or the prior noise in units of its variance.
    """

    def __init__(self, design: Design, of: float | Prior) -> None:
        rng = np.random.default_rng(0)
        normal = rng.standard_normal((DRAWS, len(design.cell)))
        block = rng.standard_normal((DRAWS, design.seen.shape[1]))[:, design.seed]
        prior = of if isinstance(of, Prior) else None
        statistics, self._errors = [], list[Numbers]()
        for noise in noises(design, of, rng):
            own = noise.deviations[..., design.cell]
            measured = design.measure(normal * own + block * noise.scaling[design.cell], prior)
            statistics.append(measured.statistic)
            if not self._errors:
                self.equal = measured
            self._errors.append(measured.error / _deviation(design, own, noise.scaling))
        wide = np.max([np.quantile(one, 1 - SCALED, axis=0) for one in statistics], axis=0)
        # Questions that differ in nothing but which of the cells is made noisy have one scale.
        wide = np.array([wide[alike(design, number)].max() for number in range(len(wide))])
        self.scales: Numbers = wide / wide.min(initial=math.inf)
        self.largest = np.stack([np.sort((one / self.scales).max(axis=1)) for one in statistics])
        self.single = np.stack([np.sort(one, axis=0).T for one in statistics])
        self._detectable: dict[tuple[int, float], float] = {}

    def corrected(self, question: int, statistic: float) -> float:
        """Probability that any question's statistic is this large, under the worst noise."""
        scaled = statistic / float(self.scales[question])
        counted = _chance(self.largest, scaled)
        return counted if counted >= RARE else min(RARE, self._rare(scaled))

    def p(self, question: int, statistic: float) -> float:
        """Probability that this question's statistic is this large, under the worst noise."""
        counted = _chance(self.single[:, question], statistic)
        if counted >= RARE:
            return counted
        return min(RARE, self._rare(statistic / float(self.scales[question]), question))

    def critical(self, alpha: float) -> Numbers:
        """The critical value of each question's statistic for a `corrected` of `alpha`."""
        return self.scales * self._critical(alpha)

    def _critical(self, alpha: float) -> float:
        """The same, before rescaling."""
        if alpha >= RARE:
            place = math.floor(alpha * (DRAWS + 1) + 1e-9) - 1
            return float(self.largest[:, DRAWS - 1 - place].max())
        if alpha >= FAR:
            return self._solved(alpha)
        last, power = self._far
        return last * (FAR / alpha) ** (1 / power) if alpha > 0 else math.inf

    @functools.cached_property
    def _far(self) -> tuple[float, float]:
        """The statistic with probability `FAR`, and the power law of the tail beyond it."""
        last, before = self._solved(FAR), self._solved(2 * FAR)
        return last, math.log(2) / math.log(last / before)

    def _solved(self, alpha: float) -> float:
        """`_critical` for a probability too small to count."""
        low = self._critical(RARE)

        def excess(scale: float) -> float:
            chance = min(RARE, float(self._tail(low * math.exp(scale)).sum(axis=1).max()))
            return math.log(max(chance, 1e-300) / alpha)

        if excess(0.0) <= 0:  # hardly rarer than what is counted, which is by chance the larger
            return low
        high = 1.0
        while excess(high) > 0:
            high *= 2
        root: float = needs("scipy.optimize").brentq(excess, 0.0, high, xtol=1e-4)
        return low * math.exp(root)

    def _rare(self, statistic: float, question: int | None = None) -> float:
        """A small probability: of one question, or of any; see `corrected`."""
        last, power = self._far
        tail = self._tail(min(statistic, last))
        chance = tail.sum(axis=1) if question is None else tail[:, question]
        return float(chance.max()) * min(1.0, last / statistic) ** power

    def _tail(self, statistic: float) -> Numbers:
        """Probability of a statistic this large, before rescaling, by noise and question.

        An upper bound: given each draw's variances, and without doubt.
        """
        erfc = needs("scipy.special").erfc
        return np.stack([
            erfc(statistic * self.scales * error / math.sqrt(2)).mean(axis=0)
            for error in self._errors
        ])  # fmt: skip

    def detectable(self, question: int, alpha: float) -> float:
        """The difference detected with a chance of 80 %, in deviations of an equal noise."""
        if (question, alpha) not in self._detectable:
            critical, detectable = float(self.critical(alpha)[question]), math.inf
            if math.isfinite(critical):
                needed = self.equal.needed(critical)[:, question]
                detectable = float(np.quantile(needed, CHANCE))
            self._detectable[question, alpha] = detectable
        return self._detectable[question, alpha]


_DRAWN: WeakKeyDictionary[Design, dict[float | Prior, Null]] = WeakKeyDictionary()


def null_of(design: Design, ratio: float = RATIO, prior: Prior | None = None) -> Null:
    """The null distribution of a design; sampled once, and kept as long as the design.

    Args:
        design: design of the tables.
        ratio: largest ratio of two cells' deviations.
        prior: knowledge of the noise; the ratio is then unused.
    """
    of = ratio if prior is None else Prior(1.0, prior.freedom)
    drawn = _DRAWN.setdefault(design, {})
    if of not in drawn:
        drawn[of] = Null(design, of)
    return drawn[of]


def alike(design: Design, question: int) -> list[int]:
    """Questions with the same weights of cells and equally many runs."""
    runs = design.seen.sum(axis=1)
    kinds = [sorted(zip(row[row != 0], runs[row != 0], strict=True)) for row in design.contrasts]
    return [number for number, kind in enumerate(kinds) if kind == kinds[question]]


def noises(design: Design, of: float | Prior, rng: np.random.Generator) -> Iterator[_Noise]:
    """Noises to guard against: cells as unequal as a prior's, or up to a ratio of deviations.

    Up to a ratio: equal noise; one cell of each number of runs noisier; half or all but one
    noisier; cells that scale with the block.
    """
    cells = len(design.seen)
    none = np.zeros(cells)
    if isinstance(of, Prior):
        yield _Noise(np.sqrt(of.freedom / rng.chisquare(of.freedom, (DRAWS, cells))), none)
        return
    yield _Noise(np.ones(cells), none)
    if of <= 1:
        return
    runs = {int(n): cell for cell, n in enumerate(design.seen.sum(axis=1))}
    groups = [np.arange(cells) == one for one in dict.fromkeys([0, *runs.values()])]
    groups += [np.arange(cells) % 2 == 1]
    groups += [row > 0 for row in design.contrasts if (row > 0).sum() > 1]
    known = {group.tobytes(): group for one in groups for group in (one, ~one)}
    for factor in (math.sqrt(of), of):
        yield _Noise(np.ones(cells), np.linspace(0, factor, cells))
        for group in known.values():
            if group.any() and not group.all():
                yield _Noise(np.where(group, factor, 1.0), none)


def _deviation(design: Design, own: Numbers, scaling: Numbers) -> Numbers:
    """The true deviation of each question's difference: (questions,) or (tables, questions).

    Args:
        design: the design of the questions.
        own: deviations of the values, or tables x values.
        scaling: sensitivity of each cell to a seed's effect.
    """
    seeds = np.eye(design.seen.shape[1])[design.seed]  # values x seeds
    shared = seeds.T @ (design.means * scaling[design.cell][:, None])
    deviation: Numbers = np.sqrt(own**2 @ design.means**2 + (shared**2).sum(axis=0))
    return deviation


def _chance(of: NDArray[np.floating], statistic: float) -> float:
    """The share of draws at least this large, with rows sorted; for the row with the most."""
    below = min(int(np.searchsorted(row, statistic, side="left")) for row in of)
    return (DRAWS - below + 1) / (DRAWS + 1)
