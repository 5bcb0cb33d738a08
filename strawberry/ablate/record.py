"""Read an ablation's folder: cells, trials, and their results."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from strawberry.contracts.execution import FINISHED
from strawberry.errors import StrawberryError
from strawberry.runs.folder import RunFolder
from strawberry.runs.ledger import FINAL, RECORD
from strawberry.training.items import RowLosses, last_rows, read_rows

__all__ = ["RECORD", "HasResult", "Record", "TrialRecord", "openings_of", "typed", "values_of"]

TESTED_ROWS = "final/rows"
"""Path of the test split's rows, by a trial's key."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A recorded trial, with its result if it has run.

    Attributes:
        tested: the result on the test split, which replaces its last evaluation.
    """

    cell: str
    stage: str
    seed: int
    label: str
    key: str
    folder: Path
    tested: Mapping[str, float] | None = field(default=None, hash=False)

    def result(self) -> dict[str, Any] | None:
        """The result, or None."""
        try:
            asked = json.loads((self.folder / "trial.json").read_text())
            result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        except (OSError, ValueError):
            return None
        if asked.get("key") != self.key:
            return None
        if self.tested is not None:
            result["metrics"] = {**result["metrics"], **self.tested}
        return result

    def rows(self) -> list[dict[str, Any]]:
        """The rows of its log."""
        return RunFolder(self.folder / "run").metrics()

    def items(self, metric: str, last: int = 1) -> RowLosses | None:
        """The metric of each row of text, or of each item of a measure; None if not kept.

        It is the mean of the last evaluations.
        """
        rows = RunFolder(self.folder / "run").rows
        if metric != "val_loss":
            return last_rows(rows / metric, last)
        if self.tested is not None:
            return read_rows(self.folder.parents[1] / TESTED_ROWS / f"{self.key}.npz")
        return last_rows(rows, last)


class HasResult(Protocol):
    """A trial, planned or recorded."""

    @property
    def cell(self) -> str:
        """The cell's name."""

    @property
    def seed(self) -> int:
        """The seed."""

    @property
    def label(self) -> str:
        """The tuned values."""

    def result(self) -> dict[str, Any] | None:
        """The result."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows of its log."""


def values_of(
    trials: Iterable[HasResult],
    metric: str,
    cell: str | None = None,
    label: str | None = None,
    *,
    last: int = 1,
) -> dict[int, float]:
    """The metric of finished trials by seed; for one cell and label, if given.

    The metric is the mean of the run's `last` evaluations. Raises StrawberryError if it wasn't
    measured, or not often enough.
    """
    values = {}
    for trial in trials:
        if cell not in (None, trial.cell) or label not in (None, trial.label):
            continue
        result = trial.result()
        if result is not None and result["status"] == FINISHED:
            if metric not in result["metrics"]:
                known = ", ".join(sorted(result["metrics"]))
                raise StrawberryError(f"metric {metric!r} was not measured; available: {known}")
            values[trial.seed] = float(result["metrics"][metric])
            if last > 1:
                values[trial.seed] = _mean_of_last(trial, metric, last)
    return values


def _mean_of_last(trial: HasResult, metric: str, last: int) -> float:
    values = [row[metric] for row in trial.rows() if metric in row]
    if len(values) < last:
        raise StrawberryError(
            f"{trial.cell} seed {trial.seed}: has {len(values)} evaluations, but last is {last}"
        )
    return statistics.fmean(values[-last:])


def openings_of(folder: Path) -> list[dict[str, Any]]:
    """The openings of the test split by an ablation's `--final`, oldest first."""
    try:
        content = json.loads((folder / FINAL).read_text())
        return [dict(opened) for opened in content["openings"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StrawberryError(f"{folder / FINAL}: can't be read: {error}") from error


def typed(command: Sequence[str]) -> str:
    """A command as one types it, however the program was started."""
    program, *rest = command
    path = Path(program)
    if path.stem == "strawberry" or path.parts[-2:] == ("strawberry", "__main__.py"):
        program = "strawberry"
    return shlex.join([program, *rest])


def _failed(trial: TrialRecord) -> bool:
    result = trial.result()
    return result is not None and result["status"] != FINISHED


@dataclass(frozen=True, slots=True)
class Record:
    """The contents of `ablation.json`, and its trials."""

    folder: Path
    content: Mapping[str, Any]
    trials: tuple[TrialRecord, ...] = field(default=())

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Raises StrawberryError if the folder has no ablation.

        In an ablation's folder `final`, the record holds the results on the test split.
        """
        if folder.name == "final" and not (folder / RECORD).exists():
            return cls.read(folder.parent).tested(folder)
        try:
            content = json.loads((folder / RECORD).read_text())
        except (OSError, ValueError) as error:
            raise StrawberryError(f"{folder}: contains no ablation ({RECORD})") from error
        trials = tuple(
            TrialRecord(t["cell"], t["stage"], t["seed"], t["label"], t["key"],
                        folder / t["folder"])
            for t in content["trials"]
        )  # fmt: skip
        return cls(folder, content, trials)

    def tested(self, folder: Path) -> Record:
        """This record, with the results of the newest opening of the test split."""
        openings = openings_of(self.folder)
        if not openings:
            raise StrawberryError(f"{folder}: the test split has not been opened (ablate --final)")
        opened = dict(openings[-1])
        values = opened.pop("values")
        content = {
            **self.content,
            "name": f"{self.content['name']}, on the test split",
            "plan": {**self.content["plan"], "last": 1},
            "campaign": opened,
        }
        trials = tuple(replace(t, tested=values[t.key]) if t.key in values else t
                       for t in self.trials if t.stage != "main" or t.key in values
                       or _failed(t))  # fmt: skip
        return Record(folder, content, trials)

    @property
    def command(self) -> str:
        """The command that wrote it, in the form in which one types it."""
        return typed(self.content["command"])

    def of(self, cell: str, stage: str = "main") -> list[TrialRecord]:
        """A cell's trials of a stage, by seed."""
        trials = [t for t in self.trials if t.cell == cell and t.stage == stage]
        return sorted(trials, key=lambda trial: trial.seed)
