"""What a ladder came to: its fit, what was held out, and what is wrong with some of its rungs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from strawberry.ladder.analysis import Analysis, analyse, to_json
from strawberry.ladder.collapse import badly_tuned, shape_of
from strawberry.ladder.draws import draw
from strawberry.ladder.fit import fit
from strawberry.ladder.plan import RULES
from strawberry.ladder.record import LadderRecord
from strawberry.ladder.table import ONLY, Runs

LOUD: Final = (
    "NOTHING WAS HELD OUT: no rung was predicted before it was trained, so nobody knows whether "
    "these intervals hold here. `--hold-out 1` predicts the largest rung, trains it, and says how "
    "far off that was."
)


@dataclass(frozen=True)
class Results:
    """A ladder's results.

    Attributes:
        record: its folder.
        analysis: of all runs that are done.
        held_out: what was predicted of the top rungs and what came; empty if nothing was.
        warnings: rungs that look badly tuned, failures, and rungs that are missing.
        recursion: phi of a recursive architecture with its interval, if there is one.
    """

    record: LadderRecord
    analysis: Analysis
    held_out: list[dict[str, Any]]
    warnings: list[str]
    recursion: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        plan = self.record.content["plan"]
        prediction = self.record.content.get("prediction") or {}
        return {
            "name": self.record.content["name"],
            "command": self.record.content["command"],
            "rungs": self.record.rungs,
            "learning_rate": RULES[plan["rate"]],
            "fit": to_json(self.analysis),
            "held_out": self.held_out if plan["hold_out"] else None,
            "held_out_chance_better": prediction.get("chance_better", {}),
            "recursion": self.recursion,
            "warnings": self.warnings,
            "seconds": sum(self._seconds()),
            "training_flops": sum(self._flops()),
        }

    def _seconds(self) -> Iterator[float]:
        """What each trial took."""
        for _, _, record in self.record.parts():
            for trial in record.trials if record else ():
                yield float((trial.result() or {}).get("spent", 0.0))

    def _flops(self) -> Iterator[float]:
        """Training FLOPs of each trial, tuning included; steps that runs share count once."""
        for _, part, record in self.record.parts():
            sizes = {size["architecture"]: size for size in part["sizes"]}
            for trial in record.trials if record else ():
                done, size = trial.result() or {}, sizes[trial.cell]
                own = done.get("steps", 0) - done.get("forked_at", 0)
                yield own / size["optimizer_steps"] * size["training_flops"]


def results_of(record: LadderRecord) -> Results:
    """The results of what is done; raises StrawberryError where too little is."""
    runs = record.runs()
    analysis = analyse(runs)
    missing = [
        f"{part['folder'].replace('-', ' ').capitalize()} isn't trained yet."
        for _, part, ablation in record.parts()
        if ablation is None or all(trial.result() is None for trial in ablation.trials)
    ]
    warnings = [*missing, *record.failures(), *_uneven(record, analysis)]
    return Results(record, analysis, _held_out(record), warnings, _recursion(runs))


def _held_out(record: LadderRecord) -> list[dict[str, Any]]:
    """The predictions of rungs that were held out, beside what their runs came to."""
    prediction = record.content.get("prediction")
    rows = []
    for asked in (prediction or {}).get("rows", ()):
        losses = [
            row["loss"]
            for row in record.rows([asked["rung"]])
            if (row["architecture"], row["tokens"]) == (asked["architecture"], asked["tokens"])
        ]
        row = {**asked, "trained": None}
        if losses:
            mean = statistics.fmean(losses)
            half = (asked["high"] - asked["low"]) / 2
            row |= {
                "trained": mean,
                "seeds": len(losses),
                "error": asked["loss"] / mean - 1,
                "in_half_widths": abs(asked["loss"] - mean) / half,
                "held": asked["low"] <= mean <= asked["high"],
            }
        rows.append(row)
    return rows


def _uneven(record: LadderRecord, analysis: Analysis) -> Iterator[str]:
    """Rungs whose loss curves don't lie on the others'."""
    floor = float(math.exp(analysis.fit.vector[0]))
    for name in record.names:
        shapes, logs = [], []
        for number, rung in enumerate(record.rungs):
            ablation = record.ablation(number)
            shape = shape_of(number, ablation.of(name), floor) if ablation else None
            if shape is not None:
                size = next(s for s in rung["sizes"] if s["architecture"] == name)
                shapes.append(shape)
                logs.append(math.log(size["training_flops"]))
        for number, off in badly_tuned(shapes, logs):
            yield (
                f"Rung {number + 1} of {name} looks badly tuned: its loss curve is off the others' "
                f"by {off:+.1%} of the loss above the floor (arXiv 2507.02119)."
            )


def _recursion(runs: Runs) -> dict[str, Any] | None:
    """The exponent phi of recursion steps over all architectures; None if nothing recurs."""
    if not runs.recursive or np.unique(runs.columns["steps"]).size < 2:
        return None
    together = replace(runs, names=(ONLY,), place=np.zeros_like(runs.place))
    done = fit(together, "recursion")
    values = draw(done).vectors[:, -1]
    low, high = np.quantile(values, [0.05, 0.95])
    return {"phi": float(done.vector[-1]), "low": float(low), "high": float(high)}
