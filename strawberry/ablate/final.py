"""Evaluate a sweep's saved weights on the locked test split, which is opened once.

`final/final.json` in the sweep's folder records each opening: the ledger's entry and the results.
An interrupted opening is resumed, and counts once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strawberry.ablate.record import TESTED_ROWS, Record, TrialRecord, openings_of
from strawberry.ablate.suite import is_suite
from strawberry.ablate.worker import read_recipe
from strawberry.contracts.execution import FINISHED
from strawberry.data import open_dataset
from strawberry.data.fingerprint import fingerprint
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.storage import digest
from strawberry.plugin import Plugins
from strawberry.runs.ledger import FINAL
from strawberry.training.evaluate import evaluate_depths
from strawberry.training.testing import ledger_around, open_test


def final(
    folder: Path,
    *,
    again: bool = False,
    device: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """Measure a finished sweep on the test split, and return the record of that.

    Args:
        folder: the sweep's folder.
        again: open the test split once more.
        device: device of the evaluation.
        say: callback with a line for each trial.

    Raises:
        StrawberryError: the sweep is not finished, there is no test split, or it was opened before.
    """
    record = Record.read(folder)
    trials = _finished(record)
    metric = record.content["plan"]["metric"]
    if any((trial.folder / "run" / "rows" / metric).is_dir() for trial in trials):
        raise StrawberryError(
            f"{folder}: {metric} is measured on items of its own, which are no part of the test "
            "split; there is nothing to open"
        )
    content = {"openings": openings_of(folder)}
    plugins = [_plugins(trial) for trial in trials]
    first = read_recipe(_request(trials[0]), plugins[0])
    opened = content["openings"][-1] if content["openings"] else None
    (folder / FINAL).parent.mkdir(exist_ok=True)
    if opened is None or opened["complete"]:
        ledger = ledger_around(folder)
        whole = folder.absolute().parent if is_suite(folder.absolute().parent) else folder
        where = os.path.relpath(whole, ledger.folder)
        joins = None if whole is folder else len(content["openings"])
        plan = digest(record.content["plan"])
        opened = dict(
            open_test(first, ledger, again=again, joins=joins, folder=where, plan=plan).entry
        )
        opened |= {"complete": False, "values": {}}
        content["openings"].append(opened)
        _write(folder, content)
    for number, (trial, of_trial) in enumerate(zip(trials, plugins, strict=True), 1):
        if trial.key in opened["values"]:
            continue
        recipe = read_recipe(_request(trial), of_trial)
        dataset = open_dataset(recipe, test=True)
        if fingerprint(dataset, "test", recipe.model.block_size) != opened["data"]:
            raise StrawberryError(
                f"{trial.cell}: its test split differs from the baseline's, so the two can't be "
                "compared"
            )
        say(f"{trial.cell} seed {trial.seed} ({number} of {len(trials)})")
        (metrics,) = evaluate_depths(
            trial.folder / "run", [None], device=device, plugins=of_trial, split="test",
            dataset=dataset, keep=folder / TESTED_ROWS / f"{trial.key}.npz",
        )  # fmt: skip
        opened["values"][trial.key] = metrics
        _write(folder, content)
    opened["complete"] = True
    _write(folder, content)
    return Record.read(folder / "final")


def _finished(record: Record) -> list[TrialRecord]:
    """The finished trials; raises StrawberryError if some have not run."""
    gone = {c["name"] for c in record.content["cells"] if c["skipped"] or c["pruned"]}
    trials = [t for t in record.trials if t.stage == "main" and t.cell not in gone]
    results = {trial: trial.result() for trial in trials}
    waiting = [trial for trial, result in results.items() if result is None]
    if waiting:
        raise StrawberryError(
            f"{record.folder}: {len(waiting)} trials have not run; `{record.command}` runs them"
        )
    done = [trial for trial, result in results.items() if result and result["status"] == FINISHED]
    if not done:
        raise StrawberryError(f"{record.folder}: no trial finished, so there is nothing to test")
    return list({trial.key: trial for trial in done}.values())


def _request(trial: TrialRecord) -> dict[str, Any]:
    request: dict[str, Any] = json.loads((trial.folder / "trial.json").read_text())
    return request


def _plugins(trial: TrialRecord) -> Plugins:
    request = _request(trial)
    files = [Path(file) for file in request["plugin_files"]]
    return Plugins.load(files=files, disabled=request["disabled"])


def _write(folder: Path, content: dict[str, Any]) -> None:
    write_atomic(folder / FINAL, json.dumps(content, indent=1, default=str))
