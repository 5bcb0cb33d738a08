"""Sources of a table's noise: seeds, a run's last evaluations, an evaluation's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strawberry.ablate.noise import design

LAST = 5
"""Number of a run's last evaluations whose scatter is measured."""
MEANS = (1, 2, 3, LAST)
"""Numbers of last evaluations for which a mean is tried."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of one run's metric; None where there is too little data.

    Attributes:
        seeds: deviation after cell and seed means; it includes the others.
        freedom: its degrees of freedom.
        jitter: deviation of a run's last five evaluations around a parabola over their steps.
        rows: standard error of an evaluation, from its rows. All cells have the same rows.
        averaged: `seeds` with the mean of this many last evaluations as the metric.
    """

    seeds: float | None
    freedom: int
    jitter: float | None
    rows: float | None
    averaged: Mapping[int, float]


def spread(
    values: Mapping[str, Mapping[int, float]],
    curves: Mapping[str, Mapping[int, Sequence[tuple[float, float]]]],
    errors: Sequence[float],
) -> Spread:
    """The noise of a table.

    Args:
        values: the metric by cell and seed.
        curves: the evaluations of these runs, as steps and values.
        errors: standard errors of the runs' last evaluations.
    """
    seeds, freedom = residual(values)
    runs = [curves[cell].get(seed, ()) for cell, by_seed in values.items() for seed in by_seed]
    averaged: dict[int, float] = {}
    for last in MEANS:
        if runs and all(len(run) >= last for run in runs):
            means = {
                cell: {s: float(np.mean([v for _, v in curves[cell][s][-last:]])) for s in by_seed}
                for cell, by_seed in values.items()
            }
            deviation, _ = residual(means)
            averaged |= {} if deviation is None else {last: deviation}
    rows = math.sqrt(np.mean(np.square(errors))) if errors else None
    return Spread(seeds, freedom, jitter(runs), rows, averaged)


def residual(values: Mapping[str, Mapping[int, float]]) -> tuple[float | None, int]:
    """The deviation after cell and seed means, and its degrees of freedom."""
    cells = [by_seed for by_seed in values.values() if by_seed]
    seeds = sorted({seed for by_seed in cells for seed in by_seed})
    if min(len(cells), len(seeds)) < 2:
        return None, 0
    layout = design(tuple(tuple(seed in by_seed for seed in seeds) for by_seed in cells), ())
    freedom = round(layout.freedom)
    if freedom < 1:
        return None, 0
    flat = np.array([by_seed[seed] for by_seed in cells for seed in seeds if seed in by_seed])
    left = layout.residual @ (flat - flat.mean())
    return math.sqrt(float(left @ left) / freedom), freedom


def jitter(runs: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The deviation of a run's last five evaluations around a parabola, over all such runs."""
    squares, freedom = 0.0, 0
    for run in runs:
        if len(run) < LAST:
            continue
        steps, values = np.array(run[-LAST:], dtype=float).T
        places = (steps - steps[-1]) / (steps[-1] - steps[0])
        parabola = np.vander(places, 3)
        left = values - parabola @ np.linalg.lstsq(parabola, values, rcond=None)[0]
        squares += float(left @ left)
        freedom += LAST - parabola.shape[1]
    return math.sqrt(squares / freedom) if freedom else None
