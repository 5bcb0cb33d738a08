"""What so many seeds can and can't show: intervals, corrected p-values, power, verdicts.

Cells are compared with the baseline in pairs of equal seeds: the same data in the same order. With
few pairs only the t distribution of their differences is honest, so it decides; the bootstrap
interval of a mean is shown beside it. p-values are Holm's (Holm 1979), which keeps the chance of
any false finding in the whole table at alpha whatever the cells have in common.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from strawberry.ablate.extra import needs

Verdict: TypeAlias = Literal["better", "worse", "no evidence", "under-powered", "baseline"]
POWER = 0.8
"""The chance of finding the smallest difference that is called detectable."""
RESAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Summary:
    """One cell's values: `n` seeds, their mean, deviation, and interval of the mean."""

    n: int
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A cell against the baseline.

    Attributes:
        n: pairs of seeds that both have.
        difference: mean of cell - baseline.
        low, high: interval of it at the corrected level.
        p: two-sided p-value of the paired t-test.
        corrected: the same, by Holm's procedure over the table.
        detectable: the smallest true difference that so many pairs find with a chance of 80 %.
        verdict: `no evidence` if a difference that matters would have been found, `under-powered`
            if not.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    corrected: float
    detectable: float
    verdict: Verdict


def summary(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Summary:
    """Mean, deviation, and the bootstrap interval of the mean (BCa; of two values, plain)."""
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    deviation = float(np.std(values, ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return Summary(n, mean, deviation, mean, mean)
    found = needs("scipy.stats").bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="BCa" if n > 2 else "percentile",
        rng=np.random.default_rng(seed),
    )
    interval = found.confidence_interval
    return Summary(n, mean, deviation, float(interval.low), float(interval.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of any false finding stays below alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [math.nan] * len(p_values)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected


def power(effect: float, deviation: float, n: int, alpha: float) -> float:
    """The chance that a two-sided paired t-test of `n` pairs finds a true difference `effect`."""
    if n < 2:
        return 0.0
    if deviation == 0:
        return 1.0 if effect else alpha
    stats = needs("scipy.stats")
    # The square of a t statistic is an F statistic; SciPy's noncentral t has gaps.
    shift = (effect / deviation) ** 2 * n
    critical = stats.f.isf(alpha, 1, n - 1)
    return float(stats.ncf.sf(critical, 1, n - 1, shift))


def detectable(deviation: float, n: int, alpha: float, chance: float = POWER) -> float:
    """The true difference that `n` pairs of this deviation find with that chance."""
    if n < 2 or math.isnan(deviation):
        return math.inf
    return deviation * _detectable(n, alpha, chance)


@functools.lru_cache(maxsize=1024)
def _detectable(n: int, alpha: float, chance: float) -> float:
    """The same in deviations."""
    high = 1.0
    while power(high, 1.0, n, alpha) < chance:
        high *= 2
    found = needs("scipy.optimize").brentq(
        lambda effect: power(effect, 1.0, n, alpha) - chance, 0.0, high, xtol=1e-9 * high
    )
    return float(found)


def compare(
    baseline: Mapping[int, float],
    cells: Mapping[str, Mapping[int, float]],
    *,
    effect: float,
    alpha: float = 0.05,
    lower_is_better: bool = True,
    looks: int = 1,
) -> dict[str, Comparison]:
    """Every cell against the baseline; values are by seed.

    Args:
        baseline: the baseline's values.
        cells: those of the other cells.
        effect: the least difference that matters, in the values' unit.
        alpha: the chance of any false finding in the table.
        lower_is_better: what `better` means.
        looks: how often the table may be looked at before the seeds are all in; alpha is divided.
    """
    stats = needs("scipy.stats")
    alpha = alpha / looks
    differences = {
        name: [values[s] - baseline[s] for s in sorted(values.keys() & baseline.keys())]
        for name, values in cells.items()
    }
    p_values = {}
    for name, pairs in differences.items():
        if len(pairs) < 2:
            p_values[name] = math.nan
        elif np.std(pairs) <= 1e-15 * max(1.0, abs(float(np.mean(pairs)))):
            # Pairs without any spread: equal runs, or a difference that no noise explains.
            p_values[name] = 1.0 if abs(float(np.mean(pairs))) < 1e-12 else 0.0
        else:
            p_values[name] = float(stats.ttest_1samp(pairs, 0.0).pvalue)
    tested = [name for name, p in p_values.items() if not math.isnan(p)]
    # A cell that could not be tested still was a question that the table asked.
    corrected = dict(zip(cells, holm([1.0 if math.isnan(p) else p for p in p_values.values()]),
                         strict=True))  # fmt: skip
    level = alpha / max(1, len(cells))
    found: dict[str, Comparison] = {}
    for name, pairs in differences.items():
        n = len(pairs)
        mean = float(np.mean(pairs)) if n else math.nan
        deviation = float(np.std(pairs, ddof=1)) if n > 1 else math.nan
        half = (
            deviation / math.sqrt(n) * float(stats.t.isf(level / 2, n - 1)) if n > 1 else math.inf
        )
        least = detectable(deviation, n, level)
        verdict: Verdict = "no evidence" if least <= effect else "under-powered"
        if name in tested and corrected[name] < alpha:
            verdict = "better" if (mean < 0) == lower_is_better else "worse"
        found[name] = Comparison(
            n, mean, mean - half, mean + half, p_values[name],
            corrected[name] if name in tested else math.nan, least, verdict,
        )  # fmt: skip
    return found


def steps_to(
    curve: Sequence[tuple[float, float]], goal: float, *, lower_is_better: bool = True
) -> float | None:
    """Where a curve of (step, value) first reaches `goal`, between its points; None: never."""
    before: tuple[float, float] | None = None
    for step, value in curve:
        if value <= goal if lower_is_better else value >= goal:
            if before is None or before[1] == value:
                return step
            share = (before[1] - goal) / (before[1] - value)
            return before[0] + share * (step - before[0])
        before = (step, value)
    return None


def speedup(
    curves: Mapping[int, Sequence[tuple[float, float]]],
    baseline: Mapping[int, Sequence[tuple[float, float]]],
    *,
    lower_is_better: bool = True,
) -> float | None:
    """Steps that the baseline took to its last value, over those of the cell: the mean ratio.

    More than 1: the cell is there sooner. None if it never gets there with some seed.
    """
    ratios = []
    for seed in curves.keys() & baseline.keys():
        if not baseline[seed] or not curves[seed]:
            return None
        last, goal = baseline[seed][-1]
        steps = steps_to(curves[seed], goal, lower_is_better=lower_is_better)
        if not steps:
            return None
        ratios.append(last / steps)
    return float(np.mean(ratios)) if ratios else None


def undecided(found: Mapping[str, Comparison], effect: float) -> list[str]:
    """Cells about which more seeds could still tell: no verdict, and an interval too wide."""
    return [
        name
        for name, c in found.items()
        if c.verdict in ("no evidence", "under-powered") and not (c.high - c.low) / 2 <= effect
    ]


def as_json(value: Any) -> Any:
    """Numbers as JSON: what is not finite is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
