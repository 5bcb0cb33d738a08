"""Uncertainty of a fit: a bootstrap over runs and seeds in which what is assumed is drawn as well.

Each draw adds noise to the losses and fits them as the real ones were fitted. Drawn are, each time:
the deviation of the noise, since a few runs tell it badly; what a size has in common over its seeds
(a learning rate that suits it less); what each seed has of its own; and what is expected of floor
and exponents, so that where the runs don't say, the draws are as wide as the literature (randomize
then optimize: Bardsley et al. 2014, SIAM J. Sci. Comput. 36). A bootstrap that only picks among
five sizes has no draw beyond the residuals that it saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from strawberry.ladder.fit import Fit, solve
from strawberry.ladder.table import Numbers, Places, Runs

COUNT: Final = 200
"""Draws, if not said otherwise."""
COMMON: Final = 0.002
"""Deviation of ln L that a size may have of its own where seeds are quiet: a rate that suits it
less, a shape that is a little off the others'."""
MOST: Final = 0.95
"""The largest share of their noise that cooldowns of one run are taken to have in common."""
_TAUS: Final = np.linspace(0.0, 3.0, 31)
"""Grid of the size-specific deviation, as a multiple of the expected one."""


@dataclass(frozen=True)
class RunNoise:
    """Estimates of the noise of runs around a curve.

    Attributes:
        groups: of each run, the number of its size: (runs,).
        within: sum of squares of seeds about their size's mean.
        within_freedom: its degrees of freedom; 0 where no size has two seeds.
        between: sum of squares of the sizes' means about the curve, times their seeds.
        between_freedom: its degrees of freedom.
        seeds: the mean number of seeds of a size.
        least: what sizes may have in common over their seeds even where seeds are all alike.
        stems: of each run, the number of its stem, see `Runs.stems`: (runs,).
        shared: the share of the variance of seeds that runs of one stem have in common.
    """

    groups: Places
    within: float
    within_freedom: float
    between: float
    between_freedom: float
    seeds: float
    least: float = 0.0
    stems: Places | None = None
    shared: float = 0.0

    def of_seeds(self, rng: np.random.Generator) -> Numbers:
        """The noise of each run's seed, drawn, in deviations of single runs: (runs,)."""
        alone = rng.standard_normal(len(self.groups))
        if self.stems is None or not self.shared:
            return alone
        common = rng.standard_normal(self.stems.max() + 1)[self.stems]
        return np.asarray(np.sqrt(1 - self.shared) * alone + np.sqrt(self.shared) * common)

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        """A deviation of single runs, and one of what sizes have in common."""
        free = max(self.between_freedom, 1.0)
        if self.within_freedom < 1:
            return float(np.sqrt(self.between / rng.chisquare(free))), 0.0
        own = max(1e-9, float(np.sqrt(self.within / rng.chisquare(self.within_freedom))))
        mean = own / np.sqrt(self.seeds)
        # It is expected to be no more than what seeds do to a mean, or COMMON where that is little.
        scale = max(mean, self.least)
        variance = 1 + (_TAUS * scale / mean) ** 2
        log = -0.5 * free * np.log(variance) - 0.5 * self.between / own**2 / variance
        log -= 0.5 * _TAUS**2
        chance = np.exp(log - log.max())
        return own, scale * float(rng.choice(_TAUS, p=chance / chance.sum()))


def shared_by(stems: Places, deviations: Numbers) -> float:
    """The share of the variance that runs of one stem have in common.

    Args:
        stems: of each run, the number of its stem: (runs,).
        deviations: of each run from the mean of its size: (runs,).
    """
    count = np.bincount(stems)
    pairs = float((count * (count - 1)).sum())
    variance = float((deviations**2).mean())
    if not pairs or not variance:
        return 0.0
    products = np.bincount(stems, deviations) ** 2 - np.bincount(stems, deviations**2)
    return float(np.clip(products.sum() / pairs / variance, 0.0, MOST))


def noise_in(fit: Fit) -> RunNoise:
    """The noise of a fit's runs: of seeds, and of sizes."""
    residuals = fit.residuals()
    groups = fit.runs.sizes()
    count = np.bincount(groups)
    means = np.bincount(groups, residuals) / count
    within = float(((residuals - means[groups]) ** 2).sum())
    stems = fit.runs.stems()
    clipped = np.clip(means, -3 * fit.noise, 3 * fit.noise)
    between = float((count * clipped**2).sum())
    return RunNoise(
        groups,
        within,
        float(len(residuals) - len(count)),
        max(between, 1e-14),
        float(len(count) - fit.freedom),
        float(count.mean()),
        COMMON,
        stems,
        shared_by(stems, residuals - means[groups]),
    )


@dataclass(frozen=True)
class Draws:
    """Draws of a fit's parameters and of the noise.

    Attributes:
        fit: the fit.
        vectors: the law's parameters: (draws, size).
        noise: deviation of one run's ln L about the curve in each draw: (draws,).
    """

    fit: Fit
    vectors: Numbers
    noise: Numbers

    def curves(self, runs: Runs) -> Numbers:
        """The curve's ln L at sizes: (draws, runs)."""
        law = self.fit.law
        return np.array([law.log_loss(vector, runs)[0] for vector in self.vectors])

    def losses(self, runs: Runs) -> Numbers:
        """The ln L of single runs at sizes, noise and all: (draws, runs)."""
        curves = self.curves(runs)
        rng = np.random.default_rng(len(runs))
        return np.asarray(curves + self.noise[:, None] * rng.standard_normal(curves.shape))


def draw(fit: Fit, count: int = COUNT, seed: int = 0) -> Draws:
    """Draw a fit's parameters.

    Args:
        fit: the fit.
        count: how many draws.
        seed: of the generator; equal ones give equal draws.
    """
    rng = np.random.default_rng(seed)
    known, law = noise_in(fit), fit.law
    losses = np.log(fit.runs.loss)
    vectors, noises = [], []
    for _ in range(count):
        own, common = known.draw(rng)
        target = losses + own * known.of_seeds(rng)
        target += common * rng.standard_normal(known.groups.max() + 1)[known.groups]
        drawn = np.where(np.isfinite(law.spread), law.spread, 0.0)
        center = law.center + drawn * rng.standard_normal(law.size)
        noise = float(np.hypot(own, common * np.sqrt(known.seeds)))
        delta = max(fit.delta, fit.delta * noise / fit.noise)
        vectors.append(
            solve(law, fit.runs, fit.vector, noise=noise, delta=delta, target=target,
                  center=center)[0]
        )  # fmt: skip
        noises.append(float(np.hypot(own, common)))
    return Draws(fit, np.array(vectors), np.array(noises))


def interval(values: Numbers, level: float = 0.9) -> tuple[Numbers, Numbers]:
    """The ends of an interval that leaves as many draws below as above: of (draws, ...), (...)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
