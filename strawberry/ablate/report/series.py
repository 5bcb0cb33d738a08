"""Every trial's curves, for the page: the metric and training loss, by steps and by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from strawberry.ablate.record import Record
from strawberry.ablate.report.table import ResultTable

POINTS = 20_000
"""Number of points of all curves of a kind together, which limits the page's size; at least 20 for
each curve.
"""
MOST = 200
"""Points of one curve."""
TRAINING = "loss"
"""Key of the training loss in a run's log."""


def series(record: Record, table: ResultTable, points: int = POINTS) -> list[dict[str, Any]]:
    """A mapping for each curve: `cell`, `seed`, `what`, and lists `step`, `value` and `seconds`.

    `seconds` are of training steps alone, and missing if the log has no speed. Further keys are
    `tokens` and `flops` of one step, and `last`, the curve's last step. Curves with too many
    points, with `points` for all of a kind, become means over equal stretches.
    """
    trials = [(row.cell, trial) for row in table.rows for trial in record.of(row.name)]
    room = min(MOST, max(20, points // max(1, len(trials))))
    curves = []
    for cell, trial in trials:
        rows = trial.rows()
        for what in dict.fromkeys((table.metric, TRAINING)):
            curve = _curve(rows, what, cell["budget"], room)
            if curve is not None:
                curves.append({"cell": trial.cell, "seed": trial.seed, "what": what, **curve})
    return curves


def kinds(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds of curves, the metric first; one that each trial measured once comes last."""
    longest: dict[str, int] = {}
    for curve in curves:
        longest[curve["what"]] = max(longest.get(curve["what"], 0), len(curve["step"]))
    return sorted(longest, key=lambda name: (longest[name] == 1, name == TRAINING))


def _curve(
    rows: Sequence[Mapping[str, Any]], what: str, budget: Mapping[str, Any], room: int
) -> dict[str, Any] | None:
    points = [(row["step"], row[what]) for row in rows if np.isfinite(row.get(what, np.nan))]
    if not points:
        return None
    steps, values = _thinned(np.array(points, dtype=float), room)
    tokens = budget["tokens"] / max(1, budget["steps"])
    curve = {
        "step": [round(step) for step in steps],
        "value": [float(f"{value:.6g}") for value in values],
        "tokens": tokens,
        "flops": tokens * budget["flops_per_token"],
        "last": round(steps[-1]),
    }
    clock = _clock(rows, tokens)
    if clock is not None:
        curve["seconds"] = [float(f"{s:.5g}") for s in np.interp(steps, *clock)]
    return curve


def _thinned(points: Any, room: int) -> tuple[Any, Any]:
    """At most `room` points: the last step and the mean value of each stretch."""
    parts = np.array_split(points, min(room, len(points)))
    return np.array([p[-1, 0] for p in parts]), np.array([p[:, 1].mean() for p in parts])


def _clock(rows: Sequence[Mapping[str, Any]], tokens: float) -> tuple[Any, Any] | None:
    """Steps, and the cumulative training seconds from the logged speeds."""
    timed = [(row["step"], row["tokens_per_second"]) for row in rows
             if row.get("tokens_per_second")]  # fmt: skip
    if not timed:
        return None
    steps, speeds = np.array(timed, dtype=float).T
    return steps, np.cumsum(np.diff(steps, prepend=0.0) * tokens / speeds)
