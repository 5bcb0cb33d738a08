"""The locked test split: opened for one evaluation, and recorded in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strawberry.contracts.data import TEST
from strawberry.data import open_dataset
from strawberry.data.fingerprint import fingerprint
from strawberry.data.opening import divided_ahead
from strawberry.errors import StrawberryError
from strawberry.runs.ledger import OPENING, RECORD, SUITE, Ledger

if TYPE_CHECKING:
    from strawberry.data import Dataset
    from strawberry.recipe.spec import Recipe


def ledger_around(folder: Path) -> Ledger:
    """The ledger for a run or a sweep: that of the parent folder.

    A sweep's trial has the sweep's, and a suite's table the suite's.
    """
    folder = folder.absolute()
    sweep = folder.parents[2] if folder.name == "run" and len(folder.parents) > 2 else folder
    around = sweep.parent if (sweep / RECORD).exists() else folder.parent
    return Ledger(around.parent if (around / SUITE).exists() else around)


def open_test(
    recipe: Recipe, ledger: Ledger, *, again: bool, joins: int | None = None, **noted: Any
) -> Opened:
    """Open the test split of a recipe's data, and record it.

    Args:
        recipe: the recipe of the data.
        ledger: the ledger for the record.
        again: allow another opening, which is recorded.
        joins: for a part of something (a table of a suite): the number of openings for the same
            `folder` that include it; one beyond these is a separate opening.
        noted: further entries: the folder, the plan's digest.

    Raises:
        StrawberryError: there is no test split, it was opened before, or it can't be recorded.
    """
    dataset = open_dataset(recipe, test=True)
    if TEST not in dataset.splits:
        division = divided_ahead(recipe)
        raise StrawberryError(
            f"the {recipe.data.use} data has no test split"
            + (f": {division}" if division else " (their `splits` names none)")
        )
    block = recipe.model.block_size
    data = fingerprint(dataset, TEST, block)
    with ledger.held():
        entries, _ = ledger.read()
        before = [e for e in entries if e["kind"] == OPENING and e["data"] == data]
        same = [e for e in before if e.get("folder") == noted.get("folder")]
        if joins is not None and len(same) > joins:
            return Opened(dataset, same[joins])
        if before and not again:
            raise StrawberryError(f"{said(before)}; --again opens it once more, which is recorded")
        entry = ledger.add(
            OPENING, data=data, val=fingerprint(dataset, "val", block), opening=len(before) + 1,
            **noted,
        )  # fmt: skip
    return Opened(dataset, entry)


@dataclass(frozen=True, slots=True)
class Opened:
    """A data set with its test split open, and the ledger's entry."""

    dataset: Dataset
    entry: dict[str, Any]


def said(openings: Sequence[Mapping[str, Any]]) -> str:
    """Number of openings of the test split, and the last date."""
    last = openings[-1]
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    return f"the test split of this data was opened {times}, on {last['when']} for {last['folder']}"
