"""Fits of a law: Huber loss on logarithms from many starts, and what is expected beforehand.

The loss of a run enters as its logarithm, and beyond `delta` counts linearly (Hoffmann et al.
2022). As Besiroglu et al. 2024 (arXiv 2404.10102) showed, an optimiser that stops early gives other
exponents, and intervals that are far too narrow: the sum is taken to its minimum by SciPy's trust
region, with exact derivatives.

What is expected of floor and exponents (`laws`) enters as further residuals, each as heavy as one
run is in deviations. Where the runs say something, they outweigh it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from strawberry.ablate.extra import needs
from strawberry.ladder.laws import PHI, Law
from strawberry.ladder.table import Numbers, Runs

HUBER: Final = 1.345
"""Deviations beyond which a residual counts linearly: 95 % efficient where noise is normal."""
LEAST_DELTA: Final = 1e-3
"""That of Hoffmann et al. 2022; the least that is used."""
FAR: Final = 6.0
"""Deviations beyond which a run is left out, and named."""
MANY: Final = 20
"""Runs that a fit must have before any is left out."""
STEPS: Final = 200
TRIED: Final = 6
"""Starts that are followed to the end: those of the least loss."""


@dataclass(frozen=True)
class Fit:
    """A law fitted to runs.

    Attributes:
        law: the law.
        runs: those that it was fitted to, without the ones that were left out.
        vector: the law's parameters.
        noise: deviation of a run's ln L about the curve.
        delta: where the Huber loss becomes linear.
        outliers: which of the runs that were given were left out.
        freedom: how many parameters the runs determined, at most the law's size.
        minima: how far from each other the ends of the best starts are, in ln L of the runs.
    """

    law: Law
    runs: Runs
    vector: Numbers
    noise: float
    delta: float
    outliers: NDArray[np.bool_]
    freedom: float
    minima: float = field(default=0.0)

    def residuals(self, runs: Runs | None = None) -> Numbers:
        """Ln L minus the curve's, of the given runs or, by default, of the fitted ones."""
        runs = runs or self.runs
        residuals: Numbers = np.log(runs.loss) - self.law.log_loss(self.vector, runs)[0]
        return residuals

    def loss(self, runs: Runs) -> Numbers:
        """The curve's loss at the sizes of other runs, in nats."""
        return np.asarray(np.exp(self.law.log_loss(self.vector, runs)[0]))


def fit(runs: Runs, name: str, *, shared: bool = False, delta: float | None = None) -> Fit:
    """Fit a law.

    Args:
        runs: with their losses.
        name: the law, one of `laws.TERMS`.
        shared: whether architectures have the same exponents.
        delta: where the Huber loss becomes linear, in ln L. None takes 0.001 where there are many
            runs, and of few 1.345 deviations of their noise, which wastes less of them.
    """
    kept = np.ones(len(runs), bool)
    while True:
        law = Law.over(name, runs.take(kept), shared=shared)
        vector, noise, used, minima = _settle(law, runs.take(kept), delta)
        residuals = np.log(runs.loss) - law.log_loss(vector, runs)[0]
        near = np.abs(residuals) <= FAR * noise if len(runs) >= MANY else kept
        if near.sum() >= kept.sum() or not (kept & ~near).any():
            break
        kept &= near
    chosen = runs.take(kept)
    freedom = determined(law, vector, chosen, noise)
    return Fit(law, chosen, vector, noise, used, ~kept, freedom, minima)


def _settle(law: Law, runs: Runs, delta: float | None) -> tuple[Numbers, float, float, float]:
    """The parameters, the noise, delta, and how unlike the best starts' ends are."""
    noise, starts = 0.01, list(begin(law, runs))
    minima = 0.0
    for turn in range(4):
        few = HUBER * noise if len(runs) < MANY else 0.0
        used = delta or max(LEAST_DELTA, few)
        ends = [solve(law, runs, start, noise=noise, delta=used) for start in starts]
        ends.sort(key=lambda end: end[1])
        vector = ends[0][0]
        if turn == 0:
            minima = _unlike(law, runs, ends)
        starts = [vector]
        before, noise = noise, noise_of(law, vector, runs, noise)
        if abs(noise / before - 1) < 0.02:
            break
    return vector, noise, used, minima


def _unlike(law: Law, runs: Runs, ends: list[tuple[Numbers, float]]) -> float:
    """Spread in ln L of the curves of all minima that are as good as the best."""
    best = law.log_loss(ends[0][0], runs)[0]
    good = [end for end, cost in ends if cost <= ends[0][1] * 1.01]
    return max(float(np.abs(law.log_loss(end, runs)[0] - best).max()) for end in good)


def noise_of(law: Law, vector: Numbers, runs: Runs, guess: float) -> float:
    """A robust standard deviation of ln L around a curve."""
    residuals = np.log(runs.loss) - law.log_loss(vector, runs)[0]
    if len(runs) >= MANY:
        spread = 1.4826 * float(np.median(np.abs(residuals)))
        spread *= np.sqrt(len(runs) / (len(runs) - law.size))
    else:
        left = len(runs) - determined(law, vector, runs, guess)
        spread = float(np.sqrt((residuals**2).sum() / max(left, 0.5)))
    return max(spread, 1e-6)


def determined(law: Law, vector: Numbers, runs: Runs, noise: float) -> float:
    """Number of parameters that the runs determine: the trace of the hat matrix, prior included."""
    change = law.log_loss(vector, runs)[1]
    inner = change.T @ change
    prior = np.diag((noise / law.spread) ** 2)
    return float(np.trace(np.linalg.lstsq(inner + prior + 1e-15 * np.eye(law.size), inner)[0]))


def solve(
    law: Law,
    runs: Runs,
    start: Numbers,
    *,
    noise: float,
    delta: float,
    target: Numbers | None = None,
    center: Numbers | None = None,
) -> tuple[Numbers, float]:
    """The parameters of the least loss from a start, and that loss.

    Args:
        law: the law.
        runs: the runs.
        start: where to begin.
        noise: deviation of a run's ln L, by which what is expected is weighed.
        delta: where the Huber loss becomes linear.
        target: ln L of the runs, if it isn't that of their losses.
        center: what is expected of the parameters, if it isn't the law's.
    """
    target = np.log(runs.loss) if target is None else target
    center = law.center if center is None else center
    held = np.isfinite(law.spread)
    weight = noise / law.spread[held]
    rows = np.diag(noise / law.spread)[held]

    def residuals(vector: Numbers) -> Numbers:
        return np.concatenate([law.log_loss(vector, runs)[0] - target,
                               weight * (vector - center)[held]])  # fmt: skip

    def jacobian(vector: Numbers) -> Numbers:
        return np.vstack([law.log_loss(vector, runs)[1], rows])

    end: Any = needs("scipy.optimize").least_squares(
        residuals, start, jacobian, x_scale="jac", loss=_huber(len(runs)), f_scale=delta,
        max_nfev=STEPS, ftol=1e-9, xtol=1e-9, gtol=1e-9,
    )  # fmt: skip
    return end.x, float(end.cost)


def _huber(count: int) -> Callable[[Numbers], Numbers]:
    """Huber's loss for the first residuals, of runs; squares for the rest. SciPy's form of it."""

    def loss(z: Numbers) -> Numbers:
        flat = z <= 1
        flat[count:] = True
        root = np.sqrt(np.where(flat, 1.0, z))
        return np.array([np.where(flat, z, 2 * root - 1), 1 / root,
                         np.where(flat, 0.0, -0.5 / root**3)])  # fmt: skip

    return loss


def begin(law: Law, runs: Runs) -> Iterable[Numbers]:
    """The best starts of a grid over floor and exponents; least squares gives the coefficients."""
    lowest = float(runs.loss.min())
    trials = []
    for share in (0.2, 0.4, 0.6, 0.75, 0.9):
        for powers in _grid([term.center for term in law.terms]):
            start = _start(law, runs, share * lowest, powers)
            off = np.log(runs.loss) - law.log_loss(start, runs)[0]
            trials.append((float(np.abs(off).sum()), start))
    trials.sort(key=lambda trial: trial[0])
    return [start for _, start in trials[:TRIED]]


def _grid(centers: list[float]) -> Iterable[list[float]]:
    """The exponents of starts, half to one and a half of what is expected."""
    factors = (0.5, 0.75, 1.0, 1.4)
    if len(centers) == 1:
        return [[f * centers[0]] for f in factors]
    return [[f * centers[0], g * centers[1]] for f in factors for g in factors]


def _start(law: Law, runs: Runs, floor: float, powers: list[float]) -> Numbers:
    """The parameters of a floor and exponents, with the terms' sizes by least squares."""
    start = np.zeros(law.size)
    start[0] = np.log(floor)
    sizes, exponents = law.places(runs)
    phi = PHI if law.recursive else 0.0
    x = law.features(runs, phi)[0]
    if law.recursive:
        start[-1] = phi
    for k, power in enumerate(powers):
        start[exponents[k]] = np.log(power)
    for index in range(len(law.names)):
        mine = runs.place == index
        if not mine.any():
            continue
        above = runs.loss[mine] - floor
        columns = np.exp(-np.array(powers)[:, None] * x[:, mine])
        factors = needs("scipy.optimize").nnls(columns.T, above)[0]
        for k, factor in enumerate(factors):
            start[sizes[k][mine][0]] = np.log(max(float(factor), 0.02 * above.mean()))
    return start
