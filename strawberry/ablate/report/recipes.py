"""The difference of a cell's recipe from the baseline's, and the command that repeats a trial."""

from __future__ import annotations

import difflib
import json
import shlex
from dataclasses import dataclass

from strawberry.ablate.record import Record, TrialRecord
from strawberry.ablate.report.table import CellRow, ResultTable


@dataclass(frozen=True, slots=True)
class CellDetail:
    """Details of a cell on the page.

    Attributes:
        diff: lines of its recipe against the baseline's, as in `diff -u`; empty before any trial.
        commands: the command that repeats a finished trial, by seed.
        values: the metric by seed.
    """

    name: str
    patch: str
    diff: tuple[str, ...]
    commands: tuple[tuple[int, str], ...]
    values: tuple[tuple[int, float], ...]


def details(record: Record, table: ResultTable, patches: dict[str, str]) -> list[CellDetail]:
    """The details of all rows of the table, in its order."""
    base = {trial.seed: _recipe(trial) for trial in record.of(table.baseline)}
    return [_detail(record, row, base, patches[row.name]) for row in table.rows]


def _detail(record: Record, row: CellRow, base: dict[int, list[str]], patch: str) -> CellDetail:
    trials = record.of(row.name)
    diff: list[str] = []
    for trial in trials:
        own = _recipe(trial)
        if own and base.get(trial.seed):
            lines = difflib.unified_diff(base[trial.seed], own, n=2, lineterm="")
            diff = list(lines)[2:]  # without the names of files
            break
    commands = tuple(
        (trial.seed, shlex.join(["strawberry", "ablate", str(trial.folder), "--reproduce"]))
        for trial in trials
        if trial.seed in row.values
    )
    return CellDetail(row.name, patch, tuple(diff), commands, tuple(sorted(row.values.items())))


def _recipe(trial: TrialRecord) -> list[str]:
    """The lines of the recipe that a trial trains; none before it starts."""
    try:
        request = json.loads((trial.folder / "trial.json").read_text())
    except (OSError, ValueError):
        return []
    return str(request["recipe"]).splitlines()
