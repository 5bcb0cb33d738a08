"""Noise and duration of finished trials, as estimates for further trials."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strawberry.ablate.extra import needs
from strawberry.ablate.record import Record, values_of
from strawberry.ablate.seeds import VARIED, sentence
from strawberry.ablate.spread import residual
from strawberry.ablate.suite import is_suite
from strawberry.contracts.execution import FINISHED
from strawberry.errors import StrawberryError

if TYPE_CHECKING:
    from strawberry.ablate.preparing import PreparedPlan


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise and duration of finished trials.

    Attributes:
        deviation: standard deviation of a run after cell and seed means, in the metric's unit.
        freedom: its degrees of freedom.
        low, high: 95 % interval of the deviation.
        baseline: mean of the baseline.
        rate: median seconds per FLOP.
        seconds: duration of a trial of each cell.
        flops: FLOPs of a trial of each cell.
        source: origin of the estimate, in words.
    """

    deviation: float
    freedom: int
    low: float
    high: float
    baseline: float
    rate: float
    seconds: Mapping[str, float]
    flops: Mapping[str, float]
    source: str

    def trial(self, cell: Mapping[str, Any]) -> float:
        """Duration of a trial of a recorded cell: measured, or estimated from its FLOPs."""
        name, flops = cell["name"], float(cell["budget"]["flops"])
        if self.flops.get(name) == flops and name in self.seconds:
            return self.seconds[name]
        return self.rate * flops


def read_noise(record: Record, plan: Mapping[str, Any], source: str) -> Noise | None:
    """The noise of a record's finished trials; None if there are too few.

    Args:
        record: the record of this sweep or of an earlier one.
        plan: names the metric, in the form of `Plan.to_dict`.
        source: description of the record, in words.

    Raises StrawberryError if the trials did not measure the metric.
    """
    cells = [c for c in record.content["cells"] if not c["skipped"] and not c["pruned"]]
    trials = {cell["name"]: record.of(cell["name"]) for cell in cells}
    values = {
        name: values_of(of_cell, plan["metric"], last=int(plan.get("last", 1)))
        for name, of_cell in trials.items()
    }
    deviation, freedom = residual(values)
    base = next(iter(values.values()), {})
    if deviation is None or not deviation > 0 or not base:
        return None
    measured = {name: _seconds(of_cell) for name, of_cell in trials.items()}
    seconds = {name: value for name, value in measured.items() if value is not None}
    flops = {cell["name"]: float(cell["budget"]["flops"]) for cell in cells}
    chi2 = needs("scipy.stats").chi2
    low, high = (deviation * math.sqrt(freedom / chi2.ppf(p, freedom)) for p in (0.975, 0.025))
    baseline = statistics.fmean(base.values())
    rates = [value / flops[name] for name, value in seconds.items()]
    rate = statistics.median(rates or [math.nan])
    return Noise(deviation, freedom, low, high, baseline, rate, seconds, flops, source)


def finished(record: Record | None) -> dict[str, int]:
    """Number of finished trials of each cell."""
    return Counter(
        trial.cell
        for trial in (record.trials if record is not None else ())
        if trial.stage == "main" and (trial.result() or {}).get("status") == FINISHED
    )


def _seconds(trials: Sequence[Any]) -> float | None:
    """Median duration of finished trials."""
    results = [result for trial in trials if (result := trial.result()) is not None]
    spent = [
        float(result.get("spent", result.get("seconds", math.nan)))
        for result in results
        if result["status"] == FINISHED
    ]
    known = [seconds for seconds in spent if math.isfinite(seconds)]
    return statistics.median(known) if known else None


def own_trials(folder: Path, key: Callable[[Mapping[str, Any], int], str | None]) -> Record | None:
    """The record of a sweep's folder, with the trials that still belong to the sweep.

    Args:
        folder: the sweep's folder; the result is None if it has no record.
        key: returns the key of a recorded cell's trial with a seed; None if there is no such cell.
    """
    try:
        record = Record.read(folder)
    except StrawberryError:
        return None
    cells = {cell["name"]: cell for cell in record.content["cells"]}
    kept = (
        trial
        for trial in record.trials
        if trial.stage == "main" and trial.key == key(cells[trial.cell], trial.seed)
    )
    return replace(record, trials=tuple(kept))


def earlier_noise(folder: Path, prepared: PreparedPlan, table: str = "") -> Noise:
    """The noise of an earlier sweep, for a prepared one; `source` names the differences.

    Args:
        folder: folder of the earlier sweep, or of a suite.
        prepared: the new sweep.
        table: name of the table in its suite, used if `folder` is a suite's.

    Raises StrawberryError if there is no noise estimate.
    """
    folder = folder / table if is_suite(folder) else folder
    record = Record.read(folder)
    content = record.content
    plan = prepared.plan.to_dict()
    source = f"the sweep in {folder}"
    steps = {c["budget"]["steps"] for c in content["cells"] if c["budget"]}
    own = {budget.steps for budget in prepared.budgets.values()}
    if steps != own:
        source += f" of {_numbers(steps)} steps, but these trials have {_numbers(own)}"
    varied = tuple(content["plan"].get("vary_seed", VARIED))
    if varied != prepared.plan.vary_seed:
        there = sentence(varied).rstrip(".")
        source += f"; there: {there[0].lower()}{there[1:]}"
    try:
        noise = read_noise(record, plan, source)
    except StrawberryError as error:
        raise StrawberryError(f"--noise-from {folder}: {error}") from error
    if noise is None:
        raise StrawberryError(
            f"--noise-from {folder}: no noise estimate; it needs two cells that finished "
            "with two seeds"
        )
    return noise


def _numbers(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
