"""Statistics of a number of seeds: intervals, corrected p-values, power, verdicts.

Every difference is judged by the noise of the whole table (`noise`). Difference, interval, p-value,
`detectable` and verdict come from one statistic and its distribution, so they agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strawberry.ablate import alpha_spending
from strawberry.ablate.extra import needs
from strawberry.ablate.noise import RATIO, Design, Prior, design, granularity
from strawberry.ablate.null import null_of

Verdict: TypeAlias = Literal[
    "better", "worse", "equivalent", "no evidence", "under-powered", "baseline"
]
LEAST = 2
"""Minimum number of shared seeds for a comparison."""
RESAMPLES = 5000
ROUNDING = 1e-12
"""Smaller relative differences are rounding of sums in another order."""


@dataclass(frozen=True, slots=True)
class CellSummary:
    """One cell's values: `n` seeds, their mean, deviation, and interval of the mean."""

    n: int
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A cell against the baseline, or any other contrast of cells.

    Attributes:
        n: seeds that all of its cells have.
        difference: mean of cell - baseline over these seeds.
        low, high: its interval; all intervals of a table hold together with a chance of 1 - alpha.
        p: two-sided p-value of this question alone.
        corrected: chance that any question of the table has such an answer by chance.
        detectable: smallest true difference that is detected with a chance of 80 %.
        verdict: `better` or `worse` if the interval excludes 0, that is if `corrected` is at most
            alpha; `equivalent` if the interval lies within the difference that matters; else `no
            evidence` if `detectable` is at most that, and `under-powered` otherwise.
        error: standard error of the difference.
        deviation: the noise of a run, from this question's cells.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    corrected: float
    detectable: float
    verdict: Verdict
    error: float = math.nan
    deviation: float = math.nan


def summary(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> CellSummary:
    """Mean, deviation, and bootstrap interval of the mean (BCa; plain for two values)."""
    n = len(values)
    if n == 0:
        return CellSummary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if n == 1:
        return CellSummary(1, mean, math.nan, math.nan, math.nan)
    deviation = float(np.std(values, ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return CellSummary(n, mean, deviation, mean, mean)
    bootstrapped = needs("scipy.stats").bootstrap(
        (np.asarray(values),),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="BCa" if n > 2 else "percentile",
        rng=np.random.default_rng(seed),
    )
    interval = bootstrapped.confidence_interval
    return CellSummary(n, mean, deviation, float(interval.low), float(interval.high))


def compare(
    baseline: Mapping[int, float],
    cells: Mapping[str, Mapping[int, float]],
    *,
    effect: float,
    alpha: float = 0.05,
    lower_is_better: bool = True,
    looks: int = 1,
    ratio: float = RATIO,
    prior: Prior | None = None,
) -> dict[str, Comparison]:
    """Compare every cell with the baseline; values are by seed.

    Args:
        baseline: the baseline's values.
        cells: the other cells' values.
        effect: smallest difference that matters, in the values' unit.
        alpha: the chance of any false finding in the table.
        lower_is_better: defines `better`.
        looks: number of looks at the table until all seeds are in: the first at 3 seeds, then one
            after each added seed. `looks.levels` gives the alpha of each look.
        ratio: largest ratio of two cells' deviations for which alpha holds.
        prior: noise of the campaign's earlier questions. Cells may then differ as much as theirs
            did, and `ratio` is unused.
    """
    names = list(cells)
    weights = [[-1.0, *(float(name == other) for other in names)] for name in names]
    comparisons = contrasts(
        [baseline, *cells.values()], weights, effect=effect, alpha=alpha,
        lower_is_better=lower_is_better, looks=looks, ratio=ratio, prior=prior,
    )  # fmt: skip
    return dict(zip(names, comparisons, strict=True))


def contrasts(
    cells: Sequence[Mapping[int, float]],
    weights: Sequence[Sequence[float]],
    *,
    effect: float,
    alpha: float = 0.05,
    lower_is_better: bool = True,
    looks: int = 1,
    ratio: float = RATIO,
    prior: Prior | None = None,
) -> list[Comparison]:
    """Judge several weighted sums of cells as one family; see `compare`.

    Args:
        cells: values by seed.
        weights: for each question a weight of each cell; they sum to 0.
        effect: smallest difference that matters.
        alpha: the chance of any false finding among these questions.
        lower_is_better: defines `better`.
        looks: see `compare`.
        ratio: see `compare`.
        prior: see `compare`.
    """
    finite = [{s: v for s, v in cell.items() if math.isfinite(v)} for cell in cells]
    common = [_common(finite, row) for row in weights]
    asked = [number for number, seeds in enumerate(common) if len(seeds) >= LEAST]
    level, look = alpha, 0
    if looks > 1:
        look = alpha_spending.look_at(max(map(len, finite), default=0), looks)
        level = alpha_spending.levels(looks, alpha)[look]
    # A question that could not be answered still was asked.
    share = len(asked) / max(1, len(weights))
    judged = _judge(finite, [weights[i] for i in asked], level * share, effect, ratio, prior)
    comparisons = []
    for number, (row, seeds) in enumerate(zip(weights, common, strict=True)):
        if number in asked:
            comparison = judged[asked.index(number)]
            corrected = alpha_spending.adjusted(min(1.0, comparison.corrected / share), look, looks)
        else:
            difference = float(np.mean(_differences(finite, row, seeds))) if seeds else math.nan
            comparison = Comparison(len(seeds), difference, -math.inf, math.inf, math.nan, math.nan,
                              math.inf, "under-powered")  # fmt: skip
            corrected = math.nan
        verdict = comparison.verdict
        if verdict == "better" and (comparison.difference < 0) != lower_is_better:
            verdict = "worse"
        comparisons.append(replace(comparison, corrected=corrected, verdict=verdict))
    return comparisons


def _judge(
    cells: Sequence[Mapping[int, float]],
    weights: Sequence[Sequence[float]],
    alpha: float,
    effect: float,
    ratio: float,
    prior: Prior | None,
) -> list[Comparison]:
    """Answer the questions with enough seeds; any detected difference is called `better`."""
    if not weights:
        return []
    blocks, values, least = _table(cells, weights)
    null = null_of(blocks, ratio, prior)
    critical = null.critical(alpha)
    measured = blocks.measure(values[None], prior, step=least)
    comparisons = []
    for number, (row, n) in enumerate(zip(blocks.contrasts, blocks.counts.tolist(), strict=True)):
        difference, error, doubt = (
            float(part[0, number]) for part in (measured.difference, measured.error, measured.doubt)
        )
        deviation = error * math.sqrt(n / float((row**2).sum()))
        statistic = float(measured.statistic[0, number]) if error else 0.0
        half = float(critical[number]) * error * doubt if error else 0.0
        detectable = deviation * null.detectable(number, alpha) if deviation else 0.0
        low, high = difference - half, difference + half
        verdict: Verdict = "no evidence" if detectable <= effect else "under-powered"
        if statistic > critical[number]:
            verdict = "better"
        elif max(-low, high) <= effect:
            verdict = "equivalent"
        comparisons.append(Comparison(
            n, difference, low, high, null.p(number, statistic), null.corrected(number, statistic),
            detectable, verdict, error, deviation,
        ))  # fmt: skip
    return comparisons


def _table(
    cells: Sequence[Mapping[int, float]], weights: Sequence[Sequence[float]]
) -> tuple[Design, NDArray[np.float64], float]:
    """The design of the cells in question, their values, and the metric's resolution."""
    used = [number for number in range(len(cells)) if any(row[number] for row in weights)]
    seeds = [
        seed for seed in sorted({s for number in used for s in cells[number]})
        if sum(seed in cells[number] for number in used) > 1
    ]  # fmt: skip
    seen = tuple(tuple(seed in cells[number] for seed in seeds) for number in used)
    blocks = design(seen, tuple(tuple(float(row[number]) for number in used) for row in weights))
    values = [cells[number][s] for number in used for s in seeds if s in cells[number]]
    center = np.array([np.mean([cells[u][s] for u in used if s in cells[u]]) for s in seeds])
    # About each seed's mean nothing is lost of large values that hardly differ.
    places = np.nonzero(blocks.seen)[1]
    first = {s: next(cells[u][s] for u in used if s in cells[u]) for s in seeds}
    gaps = [cells[u][s] - first[s] for u in used for s in seeds if s in cells[u]]
    largest = max(map(abs, values), default=0.0)
    least = granularity([gap for gap in gaps if abs(gap) > ROUNDING * largest])
    return blocks, np.asarray(values) - center[places], max(least, ROUNDING * largest)


def _common(cells: Sequence[Mapping[int, float]], row: Sequence[float]) -> list[int]:
    """The seeds that all cells of a question have."""
    used = [set(cell) for cell, weight in zip(cells, row, strict=True) if weight]
    return sorted(set.intersection(*used)) if used else []


def _differences(
    cells: Sequence[Mapping[int, float]], row: Sequence[float], seeds: Sequence[int]
) -> list[float]:
    """A question's estimate for each of the seeds."""
    return [
        sum(weight * cell[seed] for cell, weight in zip(cells, row, strict=True) if weight)
        for seed in seeds
    ]


def steps_to(
    curve: Sequence[tuple[float, float]], goal: float, *, lower_is_better: bool = True
) -> float | None:
    """The interpolated step at which a curve of (step, value) first reaches `goal`, or None."""
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
    """Steps of the baseline to its last value, divided by those of the cell; mean over seeds.

    Above 1 the cell is faster. None if it never gets there with some seed.
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


def higher_is_better(metric: str) -> bool:
    """Return whether a metric is a score rather than a loss."""
    return metric.endswith(("accuracy", "solved", "score"))


def undecided(comparisons: Mapping[str, Comparison], effect: float) -> list[str]:
    """Cells that more seeds could still decide: no verdict, and a wide interval."""
    return [
        name
        for name, c in comparisons.items()
        if c.verdict in ("no evidence", "under-powered") and not (c.high - c.low) / 2 <= effect
    ]


def as_json(value: Any) -> Any:
    """Convert to JSON values: dataclasses as mappings, non-finite numbers as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
