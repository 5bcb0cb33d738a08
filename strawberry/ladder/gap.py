"""The gap between two architectures, fitted to pairs of runs and not to two curves.

Two power laws over one floor E have a gap that is straight in logarithms:

    u = ln((L_B - E) / (L_A - E)) = c + s (ln C - m)

B is better where u < 0. The pairs share rung and seed, so what a seed or a size does to both is not
in u. The floor is not pinned but drawn, from the curves' own draws: the sign of u hardly depends on
it, how far a far one is off does. Of s it is expected that architectures differ in their factors
more than in their exponents (Hestness et al. 2017, arXiv 1712.00409): 0 with a deviation of 0.05.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from strawberry.errors import StrawberryError
from strawberry.ladder.draws import Draws, RunNoise, interval, shared_by
from strawberry.ladder.table import Numbers, Places, Runs

SLOPE: Final = 0.05
"""One deviation of the difference of two exponents of compute that is expected."""
SURE: Final = 0.95
"""The chance from which on one of two is called better."""
NEAR: Final = 0.05
"""Largest distance in ln C between the two runs of a pair."""


@dataclass(frozen=True)
class Gap:
    """Draws of the gap between B and A.

    Attributes:
        names: A and B.
        middle: ln C in the middle of the pairs.
        lowest: ln C of the smallest pair.
        highest: ln C of the largest pair.
        level: c of each draw.
        slope: s of each draw.
        power: the exponent of compute of A in each draw, by the same floor.
        pairs: how many pairs there are.
    """

    names: tuple[str, str]
    middle: float
    lowest: float
    highest: float
    level: Numbers
    slope: Numbers
    power: Numbers
    pairs: int

    def at(self, log_flops: Numbers | float) -> Numbers:
        """The gap u at ln C: (draws, sizes)."""
        x = np.atleast_1d(log_flops) - self.middle
        return np.asarray(self.level[:, None] + self.slope[:, None] * x)

    def chance(self, log_flops: Numbers | float) -> Numbers:
        """The chance that B is better: (sizes,)."""
        return np.asarray((self.at(log_flops) < 0).mean(axis=0))

    def better(self, log_flops: float) -> str | None:
        """The better architecture there; None if these rungs can't tell."""
        chance = float(self.chance(log_flops)[0])
        return self.names[1] if chance >= SURE else self.names[0] if chance <= 1 - SURE else None

    def gain(self, log_flops: Numbers | float) -> Numbers:
        """Ratio of A's compute to B's for the same loss: (draws, sizes)."""
        return np.asarray(np.exp(np.clip(-self.at(log_flops) / self.power[:, None], -50, 50)))

    def crossing(self, log_flops: float) -> tuple[float, float, float] | None:
        """The crossing of the curves below a size, ln C with a 90 % interval.

        None unless one is better at the smallest rung, or in the middle of them, and the other one
        at that size.
        """
        there = self.better(log_flops)
        here = {self.better(x) for x in (self.lowest, self.middle)} - {None, there}
        if there is None or not here:
            return None
        with np.errstate(divide="ignore"):
            crossings = self.middle - self.level / self.slope
        low, high = interval(crossings)
        return float(np.median(crossings)), float(low), float(high)


def pairs_of(runs: Runs, first: int, second: int) -> Places:
    """Indices of runs of the same size and seed of two architectures: (pairs, 2)."""
    logs = np.log(runs.flops)
    tokens = np.log(runs.columns["tokens"]) if "tokens" in runs.columns else logs
    pairs = []
    others = list(np.flatnonzero(runs.place == second))
    for one in np.flatnonzero(runs.place == first):
        # Different sizes may come to one compute, but not to one compute and one number of tokens.
        off = abs(logs - logs[one]) + abs(tokens - tokens[one])
        same = [o for o in others if runs.seed[o] == runs.seed[one]]
        nearest = min(same, key=lambda o: off[o], default=None)
        if nearest is not None and abs(logs[nearest] - logs[one]) <= NEAR:
            pairs.append((one, nearest))
            others.remove(nearest)
    return np.array(pairs, np.int64).reshape(-1, 2)


def fit_gap(draws: Draws, first: int, second: int, seed: int = 0) -> Gap:
    """Fit the gap of two of a fit's architectures, by their places.

    Raises StrawberryError where they have no two sizes in common.
    """
    runs = draws.fit.runs
    pairs = pairs_of(runs, first, second)
    names = (runs.names[first], runs.names[second])
    logs = np.log(runs.flops)[pairs].mean(axis=1)
    if len(pairs) == 0 or np.ptp(logs) < NEAR:
        raise StrawberryError(
            f"{names[0]} and {names[1]} have no two sizes with the same seeds in common: "
            "their gap can't be fitted"
        )
    rungs = _rungs_of(runs, pairs)
    rng = np.random.default_rng(seed)
    middle = float(logs.mean())
    floors = np.minimum(np.exp(draws.vectors[:, 0]), 0.98 * runs.loss.min())
    stems = runs.stems()[pairs[:, 0]]
    kin = _kin(stems, rungs)
    rows = [
        _draw(runs.loss[pairs], logs - middle, rungs, stems, kin, float(floor), rng)
        for floor in floors
    ]
    level, slope, power = np.array(rows).T
    return Gap(names, middle, float(logs.min()), float(logs.max()), level, slope, power, len(pairs))


def _rungs_of(runs: Runs, pairs: Places) -> Places:
    """The number of each pair's size, by compute and by tokens: (pairs,)."""
    columns = [runs.columns[name] for name in ("training_flops", "tokens") if name in runs.columns]
    keys = [np.round(np.log(values)[pairs].mean(axis=1) / NEAR) for values in columns]
    return np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)


def _kin(stems: Places, rungs: Places) -> Numbers:
    """1 where two sizes are token counts of the same runs, and 0 elsewhere: (sizes, sizes)."""
    known = [set(stems[rungs == rung]) for rung in range(rungs.max() + 1)]
    return np.array([[float(bool(one & other)) for other in known] for one in known])


def _draw(
    losses: Numbers,
    x: Numbers,
    rungs: Places,
    stems: Places,
    kin: Numbers,
    floor: float,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """c, s and A's exponent, over a floor: what is likely of them, drawn once.

    A loss's noise is a share of it; u's grows as the floor comes near. Multiplied by (L - E) / L
    all are equally noisy.
    """
    above = losses - floor
    scale = above[:, 0] / losses[:, 0]
    u = np.log(above[:, 1] / above[:, 0])
    rows = np.stack([scale, scale * x], axis=1)
    count = np.bincount(rungs)
    means = np.stack([np.bincount(rungs, column) / count for column in rows.T], axis=1)
    target = np.bincount(rungs, scale * u) / count
    spread = _scatter(scale * u, rungs, means, target, count)
    own, common = spread.draw(rng)
    shared = shared_by(stems, scale * u - target[rungs])
    alike = shared * kin + (1 - shared) * np.eye(len(count))
    covariance = own**2 * alike / np.sqrt(np.outer(count, count)) + common**2 * np.eye(len(count))
    weighted = np.linalg.solve(covariance, means).T
    inner = weighted @ means + np.diag([0.0, 1 / SLOPE**2])
    middle = np.linalg.solve(inner, weighted @ target)
    root = np.linalg.cholesky(np.linalg.inv(inner))
    level, slope = middle + root @ rng.standard_normal(2)
    return float(level), float(slope), _power(above[:, 0], scale, x)


def _scatter(v: Numbers, rungs: Places, means: Numbers, target: Numbers, count: Places) -> RunNoise:
    """The noise of pairs: of seeds about their rung, and of rungs about the line."""
    within = float(((v - target[rungs]) ** 2).sum())
    root = np.sqrt(count)[:, None]
    solution = np.linalg.lstsq(means * root, target * root[:, 0])[0]
    between = float((count * (target - means @ solution) ** 2).sum())
    freedom = len(count) - min(2, len(count) - 1)
    return RunNoise(rungs, within, float(len(v) - len(count)), max(between, 1e-16), float(freedom),
                 float(count.mean()))  # fmt: skip


def _power(above: Numbers, scale: Numbers, x: Numbers) -> float:
    """The exponent of compute, by a line through ln(L - E)."""
    slope = np.polyfit(x, np.log(above), 1, w=scale)[0]
    return max(float(-slope), 1e-3)
