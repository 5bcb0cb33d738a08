"""The numbers of the report: a ranked row for each cell, with its verdict."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strawberry.ablate.asking import alpha_of, standing
from strawberry.ablate.campaign import prior_of
from strawberry.ablate.factors import Effect, effects, grid
from strawberry.ablate.forecast import Forecast, forecast
from strawberry.ablate.known import finished, read_noise
from strawberry.ablate.noise import RATIO
from strawberry.ablate.record import Record, TrialRecord, openings_of, values_of
from strawberry.ablate.seeds import VARIED
from strawberry.ablate.spread import Spread, spread
from strawberry.ablate.statistics import (
    CellSummary,
    Comparison,
    Verdict,
    compare,
    higher_is_better,
    speedup,
    summary,
)
from strawberry.ablate.windows import windows_error
from strawberry.contracts.execution import DISQUALIFIED, FINISHED
from strawberry.training.items import RowLosses


@dataclass(frozen=True, slots=True)
class Failure:
    """An unfinished trial, and the reason."""

    cell: str
    stage: str
    seed: int
    label: str
    status: str
    error: str


@dataclass(frozen=True, slots=True)
class CellRow:
    """A cell.

    Attributes:
        values: the metric by seed.
        comparison: against the baseline; None for the baseline, and without values.
        bits_per_byte: its mean; None if the data is not text.
        speedup: steps of the baseline to its last loss, divided by this cell's; None if never
            reached.
        tokens_per_second: the median over logged steps and seeds.
        peak_bytes: largest memory of any of its processes.
        failed: trials of the main stage that did not finish, by status.
        planned: trials of the main stage.
        windows: standard error of the difference as an estimate for other text, from an
            evaluation's rows. `comparison.error` is that for other seeds on the same rows. None if
            rows are unknown, or the metric is not a mean over them.
    """

    name: str
    cell: Mapping[str, Any]
    values: Mapping[int, float]
    summary: CellSummary
    comparison: Comparison | None
    bits_per_byte: float | None
    speedup: float | None
    tokens_per_second: float | None
    peak_bytes: int | None
    failed: Mapping[str, int]
    planned: int
    windows: float | None = None

    @property
    def verdict(self) -> Verdict | str:
        """The verdict, or its replacement."""
        if DISQUALIFIED in self.failed:
            return DISQUALIFIED
        if not self.values:
            return "failed" if self.failed else "not run"
        return self.comparison.verdict if self.comparison is not None else "baseline"


@dataclass(frozen=True, slots=True)
class ResultTable:
    """The whole table.

    Attributes:
        rows: best first; cells without a value last.
        effects: effects of a grid's factors, main effects first, then interactions of two.
        effect: smallest difference that matters, in the metric's unit.
        ratio: largest ratio of two cells' noises for which alpha holds.
        vary_seed: randomness that the seeds vary: the noise that intervals cover.
        last: number of a run's last evaluations whose mean is the metric.
        spread: the sources of the noise.
        forecast: what more seeds would detect; None if the noise is unknown.
        skipped: cells that could not be built, and the reasons.
        pruned: cells that were stopped early, and the reasons.
        alpha: the chance of any false finding in the table.
        campaign: the ledger's entry of this question; empty in records of earlier versions.
        standing: the state of its campaign, and declarations of its cells, in sentences.
    """

    metric: str
    baseline: str
    rows: tuple[CellRow, ...]
    effects: tuple[Effect, ...]
    effect: float
    alpha: float
    looks: int
    ratio: float
    vary_seed: tuple[str, ...]
    last: int
    spread: Spread
    forecast: Forecast | None
    skipped: Mapping[str, str]
    pruned: Mapping[str, str]
    failures: tuple[Failure, ...]
    seconds: float
    campaign: Mapping[str, Any]
    standing: tuple[str, ...]

    def _repr_html_(self) -> str:
        """The rows with their verdicts, for a notebook."""
        from strawberry.ablate.report.text import shown
        from strawberry.figures import html_table

        columns = shown(self)
        rows = ([make(row) for make in columns.values()] for row in self.rows)
        return html_table(list(columns), rows)

    @property
    def measure(self) -> str:
        """The compared quantity, in words."""
        return f"{self.metric}, mean of the last {self.last}" if self.last > 1 else self.metric

    @property
    def compares(self) -> bool:
        """True if there is a baseline to compare with."""
        return any(row.name == self.baseline and row.values for row in self.rows)

    @property
    def higher_is_better(self) -> bool:
        """True if the metric is a score."""
        return higher_is_better(self.metric)


def tabulate(record: Record) -> ResultTable:
    """The table of an ablation's record, finished or not."""
    plan, content = record.content["plan"], record.content
    metric = plan["metric"]
    cells = [cell for cell in content["cells"] if not cell["skipped"] and not cell["pruned"]]
    baseline = cells[0]["name"]
    last = int(plan.get("last", 1))  # records of earlier versions have none
    values = {cell["name"]: _believable(record.of(cell["name"]), metric, last) for cell in cells}
    base = values[baseline]
    asked = content.get("campaign") or {}
    alpha = alpha_of(plan["alpha"], asked)
    effect = plan["effect"] * abs(plain.fmean(base.values())) if base else math.nan
    how: dict[str, Any] = {
        "effect": effect,
        "alpha": alpha,
        "lower_is_better": not higher_is_better(metric),
        "looks": content["looks"],
        "ratio": _ratio(plan),
        "prior": prior_of(asked),
    }
    others = {name: by_seed for name, by_seed in values.items() if name != baseline}
    compared = compare(base, others, **how)
    curves = {cell["name"]: _curves(record.of(cell["name"]), metric) for cell in cells}
    rows = [
        _row(record, cell, values[cell["name"]], compared.get(cell["name"]), curves, cells[0])
        for cell in cells
    ]
    sign = -1 if higher_is_better(metric) else 1
    rows.sort(key=lambda r: (not r.values, sign * r.summary.mean if r.values else 0.0))
    results = [trial.result() for trial in record.trials]
    return ResultTable(
        metric=metric,
        baseline=baseline,
        rows=tuple(rows),
        effects=effects(grid(plan, cells, values), **how),
        effect=effect,
        alpha=alpha,
        looks=content["looks"],
        ratio=_ratio(plan),
        vary_seed=tuple(plan.get("vary_seed", VARIED)),
        last=last,
        spread=spread(values, curves, _errors(record) if metric == "val_loss" else []),
        forecast=_forecast(record, cells),
        skipped={c["name"]: c["skipped"] for c in content["cells"] if c["skipped"]},
        pruned={c["name"]: c["pruned"] for c in content["cells"] if c["pruned"]},
        failures=tuple(_failures(record)),
        seconds=sum(float(r.get("spent", r.get("seconds", 0.0))) for r in results if r),
        campaign=asked,
        standing=(*standing(plan, asked), *_openings(record), *_declared(record)),
    )


def _forecast(record: Record, cells: Sequence[Mapping[str, Any]]) -> Forecast | None:
    """Forecast what more seeds of these cells would detect, from the noise of the finished ones."""
    plan = record.content["plan"]
    noise = read_noise(record, plan, "the trials of this sweep")
    if noise is None:
        return None
    slots = record.content["environment"]["slots"]
    plan = {**plan, "alpha": alpha_of(plan["alpha"], record.content.get("campaign"))}
    return forecast(plan, cells, noise, slots=slots, done=finished(record))


def _openings(record: Record) -> list[str]:
    """Say that this sweep's test split was opened, except in the table of that opening."""
    openings = openings_of(record.folder)
    if not openings:
        return []
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    return [f"The test split was opened {times} for this sweep; see `final`."]


def _declared(record: Record) -> list[str]:
    """Declarations that the referee trusts, by cell."""
    lines = dict[str, None]()
    for trial in record.trials:
        for line in (trial.result() or {}).get("declared", ()):
            lines[f"{trial.cell} declares: {line}."] = None
    return list(lines)


def _believable(trials: Sequence[TrialRecord], metric: str, last: int) -> dict[int, float]:
    """The metric by seed; empty if the referee disqualified a trial."""
    results = [trial.result() for trial in trials]
    if any(result and result["status"] == DISQUALIFIED for result in results):
        return {}
    return values_of(trials, metric, last=last)


def _errors(record: Record) -> list[float]:
    """Standard errors of the validation loss, of all trials that finished every step."""
    results = [trial.result() for trial in record.trials if trial.stage == "main"]
    errors = [r["metrics"].get("val_loss_se") for r in results if r and r["status"] == FINISHED]
    return [error for error in errors if error is not None]


def _ratio(plan: Mapping[str, Any]) -> float:
    """The plan's value; records of earlier versions have none."""
    return float(plan.get("noise_ratio", RATIO))


def _row(
    record: Record,
    cell: Mapping[str, Any],
    values: Mapping[int, float],
    compared: Comparison | None,
    curves: Mapping[str, Mapping[int, list[tuple[float, float]]]],
    baseline: Mapping[str, Any],
) -> CellRow:
    name = cell["name"]
    lower = not higher_is_better(record.content["plan"]["metric"])
    trials = record.of(name)
    results = [result for trial in trials if (result := trial.result()) is not None]
    done = [result for result in results if result["status"] == FINISHED]
    bits = [r["metrics"]["bits_per_byte"] for r in done if "bits_per_byte" in r["metrics"]]
    speeds = [
        row["tokens_per_second"]
        for trial in trials
        for row in trial.rows()[1:]
        if "tokens_per_second" in row
    ]
    failed: dict[str, int] = {}
    for result in results:
        if result["status"] != FINISHED:
            failed[result["status"]] = failed.get(result["status"], 0) + 1
    return CellRow(
        name=name,
        cell=cell,
        values=values,
        summary=summary(list(values.values())),
        comparison=compared,
        bits_per_byte=plain.fmean(bits) if bits else None,
        speedup=1.0
        if cell is baseline
        else speedup(curves[name], curves[baseline["name"]], lower_is_better=lower),
        tokens_per_second=plain.median(speeds) if speeds else None,
        peak_bytes=max((r["peak_bytes"] for r in done if r.get("peak_bytes")), default=None),
        failed=failed,
        planned=len(trials),
        windows=None if cell is baseline else _windows(record, name, baseline["name"]),
    )


def _windows(record: Record, cell: str, baseline: str) -> float | None:
    """Standard error of a cell's difference due to the windows of text, or to a task's items."""
    plan = record.content["plan"]
    kept: list[dict[int, RowLosses]] = []
    for name in (cell, baseline):
        done = [t for t in record.of(name) if (t.result() or {}).get("status") == FINISHED]
        items = {
            trial.seed: trial.items(plan["metric"], int(plan.get("last", 1))) for trial in done
        }
        kept.append({seed: rows for seed, rows in items.items() if rows is not None})
    return windows_error(*kept)


def _curves(trials: list[TrialRecord], metric: str) -> dict[int, list[tuple[float, float]]]:
    """The metric over steps, by seed, of trials that finished."""
    curves = {}
    for trial in trials:
        result = trial.result()
        if result is not None and result["status"] == FINISHED:
            curves[trial.seed] = [(r["step"], r[metric]) for r in trial.rows() if metric in r]
    return curves


def _failures(record: Record) -> list[Failure]:
    failures = []
    for trial in record.trials:
        result = trial.result()
        if result is not None and result["status"] != FINISHED:
            failures.append(Failure(trial.cell, trial.stage, trial.seed, trial.label,
                                 result["status"], str(result.get("error", ""))))  # fmt: skip
    return failures


def curves(record: Record, name: str, metric: str) -> dict[int, list[tuple[float, float]]]:
    """A cell's curves, for plots."""
    return _curves(record.of(name), metric)
