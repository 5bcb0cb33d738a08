"""The losses of an evaluation's rows, stored with its metrics.

`rows/STEP.npz` in a run's folder has arrays with a number for each row: `nats`, the summed loss of
its targets (float32); `targets`, their number; and `group`, the document in which it begins, if
known. Runs measured on the same rows are compared row by row with them. `rows/METRIC/STEP.npz` has
the same arrays for the items of a measure: the sum and the count of its metric.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from strawberry.contracts import ItemScores
from strawberry.errors import StrawberryError
from strawberry.files.atomic import explained, write_atomic

if TYPE_CHECKING:
    from strawberry.contracts.data import Ids, Split
    from strawberry.ranks.world import World
    from strawberry.training.batches import Batches

Keep: TypeAlias = Callable[[Sequence[float], Sequence[int]], None]
"""Receives the nats, and the number of targets, of each row of an evaluation."""


@dataclass(frozen=True, slots=True)
class RowLosses:
    """The rows of an evaluation: summed loss, number of targets, and document; (rows,) each."""

    nats: npt.NDArray[np.float64]
    targets: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]

    def same_rows(self, other: RowLosses) -> bool:
        """Return whether these are the same rows, by number of targets and document."""
        return np.array_equal(self.targets, other.targets) and np.array_equal(
            self.group, other.group
        )


KeepItems: TypeAlias = Callable[[str, ItemScores], None]
"""Receives the scores of a measure's own items, with the metric's name."""


def item_keeper(rows: Path, step: int, world: World) -> KeepItems:
    """A callback for `measure_all` that writes scores to `rows/METRIC/STEP.npz`, atomically."""

    def keep(metric: str, scores: ItemScores) -> None:
        if world.main:
            folder = rows / metric
            with explained(f"{rows}: can't write"):
                rows.mkdir(exist_ok=True)  # and no parents: a run that was moved stays away
            _write(folder / f"{step:09d}.npz", scores.sums, scores.counts, None)

    return keep


def keeper(path: Path, batches: Batches, split: Split = "val") -> Keep:
    """A callback for `validate` that writes its rows to `path`, atomically."""

    def keep(nats: Sequence[float], targets: Sequence[int]) -> None:
        if not batches.world.main:
            return
        block_size = batches.recipe.model.block_size
        group = batches.dataset.groups(split, 0, len(nats), block_size=block_size)
        _write(path, nats, targets, group)

    return keep


def _write(path: Path, nats: Sequence[float], targets: Sequence[int], group: Ids | None) -> None:
    content = io.BytesIO()
    arrays: dict[str, Any] = {
        "nats": np.asarray(nats, np.float32),
        "targets": np.asarray(targets, np.int32),
        **({} if group is None else {"group": np.asarray(group, np.int32)}),
    }
    np.savez_compressed(content, **arrays)
    with explained(f"{path}: can't write"):
        path.parent.mkdir(exist_ok=True)  # and no parents: a run that was moved stays away
    write_atomic(path, content.getvalue())


def read_rows(path: Path) -> RowLosses | None:
    """The rows of an evaluation; None if missing. Raises StrawberryError if damaged.

    If documents are unknown, each row counts as one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            nats = arrays["nats"].astype(np.float64)
            targets = arrays["targets"].astype(np.int64)
            group = arrays["group"] if "group" in arrays else np.arange(len(nats))
            return RowLosses(nats, targets, group.astype(np.int64))
    except FileNotFoundError:
        return None
    except Exception as error:
        raise StrawberryError(f"{path}: damaged: {error}") from error


def last_rows(folder: Path, last: int) -> RowLosses | None:
    """The mean loss by row of a run's last evaluations; None if any is missing."""
    files = sorted(folder.glob("*.npz"))[-last:]
    kept = [rows for file in files if (rows := read_rows(file)) is not None]
    if len(kept) < last or not all(rows.same_rows(kept[-1]) for rows in kept):
        return None
    nats = np.mean([rows.nats for rows in kept], axis=0)
    return RowLosses(nats, kept[-1].targets, kept[-1].group)
