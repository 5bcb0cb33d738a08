"""The losses of an evaluation's rows, kept beside the metrics that are made of them.

`rows/STEP.npz` in a run's folder has arrays of a number for each row: `nats`, the summed loss of
its targets (float32); `targets`, how many they are; and `group`, the document in which it begins,
where that is known. Runs that were measured on the same rows are compared row by row with them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from strawberry.errors import StrawberryError
from strawberry.files.storage import write_file

if TYPE_CHECKING:
    from strawberry.contracts.data import Split
    from strawberry.training.batches import Batches

Keep: TypeAlias = Callable[[Sequence[float], Sequence[int]], None]
"""Called with the nats, and with the number of targets, of each row of an evaluation."""


@dataclass(frozen=True, slots=True)
class RowLosses:
    """The rows of an evaluation: summed loss, number of targets, and document; (rows,) each."""

    nats: npt.NDArray[np.float64]
    targets: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]

    def same_rows(self, other: RowLosses) -> bool:
        """Whether these are rows of the same number of targets, document by document."""
        return np.array_equal(self.targets, other.targets) and np.array_equal(
            self.group, other.group
        )


def keeper(path: Path, batches: Batches, split: Split = "val") -> Keep:
    """What `validate` is to call, so that its rows are written to `path`, whole or not at all."""

    def keep(nats: Sequence[float], targets: Sequence[int]) -> None:
        if not batches.world.main:
            return
        block_size = batches.recipe.model.block_size
        group = batches.dataset.groups(split, 0, len(nats), block_size=block_size)
        content = io.BytesIO()
        arrays: dict[str, Any] = {
            "nats": np.asarray(nats, np.float32),
            "targets": np.asarray(targets, np.int32),
            **({} if group is None else {"group": np.asarray(group, np.int32)}),
        }
        np.savez_compressed(content, **arrays)
        write_file(path, content.getvalue(), parents=False)  # a run that was moved stays away

    return keep


def read_rows(path: Path) -> RowLosses | None:
    """The rows of an evaluation; None where they are not there. Raises StrawberryError if damaged.

    Where documents are not known each row is one of its own.
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
    """The mean loss by row of a run's last evaluations; None where not all have been kept."""
    files = sorted(folder.glob("*.npz"))[-last:]
    kept = [rows for file in files if (rows := read_rows(file)) is not None]
    if len(kept) < last or not all(rows.same_rows(kept[-1]) for rows in kept):
        return None
    nats = np.mean([rows.nats for rows in kept], axis=0)
    return RowLosses(nats, kept[-1].targets, kept[-1].group)
