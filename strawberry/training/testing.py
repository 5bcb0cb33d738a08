"""The locked test split: opened for one evaluation, and noted in the ledger beside the runs."""

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
    """The ledger that counts what is done with a run or a sweep: that of the folder around it.

    That of a sweep's trial is the sweep's, and that of a suite's table the suite's.
    """
    folder = folder.absolute()
    sweep = folder.parents[2] if folder.name == "run" and len(folder.parents) > 2 else folder
    around = sweep.parent if (sweep / RECORD).exists() else folder.parent
    return Ledger(around.parent if (around / SUITE).exists() else around)


def open_test(
    recipe: Recipe, ledger: Ledger, *, again: bool, joins: int | None = None, **noted: Any
) -> Opened:
    """Open the test split of a recipe's data, and note that it was.

    Args:
        recipe: whose data.
        ledger: where it is noted.
        again: open it although it was opened before; that is counted.
        joins: of a part of something (a table of a suite), in how many openings for the same
            `folder` it has had its part: one beyond these is its own, and no other.
        noted: what is noted beside: the folder, the plan's digest.

    Raises:
        StrawberryError: there is no test split, it was opened before, or it can't be noted.
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
    """A data set whose test split is open, and the ledger's entry of that."""

    dataset: Dataset
    entry: dict[str, Any]


def said(openings: Sequence[Mapping[str, Any]]) -> str:
    """How often the test split was opened, and when last."""
    last = openings[-1]
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    return f"the test split of this data was opened {times}, on {last['when']} for {last['folder']}"
