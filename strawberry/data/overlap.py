"""Measure how much of the validation text is in the training text too.

A window of validation ids is a copy if all of its runs of `RUN` ids occur in the training ids, and
a near copy if at least `NEAR` of them do. Runs of 13 follow Brown et al. (2020, arXiv 2005.14165,
appendix C).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from strawberry.data.near import VERSION, near_copies
from strawberry.data.runs import MOST, NEAR, PIECE, RUN, Sought, runs
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.storage import cache_folder, digest

if TYPE_CHECKING:
    from strawberry.contracts.data import Dataset

WINDOW: Final = 64
"""Ids of a window; a shorter document is combined with its neighbours."""
WINDOWS: Final = 512
"""Windows that are looked at, spread evenly over the split."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The measured overlap.

    Attributes:
        windows: number of validation windows examined.
        copies: fraction of them that occur in the training text.
        near: fraction that nearly do, copies included.
        seen: fraction of the training text searched.
        disguised: fraction that is a near copy with other whitespace, line ends, case or names;
            None without text (`near.near_copies`).
    """

    windows: int
    copies: float
    near: float
    seen: float
    disguised: float | None = None


def overlap(train: Sequence[npt.NDArray[Any]], val: Sequence[npt.NDArray[Any]]) -> Overlap | None:
    """The overlap of two splits, each given as arrays of ids; None if `val` has no window.

    Runs are compared by 64-bit hashes. For thirty million ids, two different runs share a hash with
    probability about 1e-6.
    """
    windows = _windows(val)
    if not len(windows):
        return None
    wanted = [runs(window) for window in windows]
    sought = Sought(wanted)
    total, seen = sum(part.size for part in train), 0
    for piece in _pieces(train):
        sought.see(runs(piece))
        seen += piece.size
        if seen >= MOST:
            break
    shares = np.array([sought.share(row) for row in wanted])
    return Overlap(
        windows=len(windows),
        copies=float((shares == 1).mean()),
        near=float((shares >= NEAR).mean()),
        seen=min(1.0, seen / max(1, total)),
    )


def known_overlap(dataset: Dataset) -> Overlap | None:
    """The overlap of a data set's splits, cached by its fingerprint.

    None if the data set provides no arrays, or `val` has no window.
    """
    tokenizer = dataset.tokenizer
    whose = "" if tokenizer is None else tokenizer.fingerprint
    key = digest(dataset.fingerprint, whose, RUN, NEAR, WINDOW, WINDOWS, MOST, VERSION)
    file = cache_folder() / "overlap" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Overlap(**json.loads(file.read_text()))
    train, val = dataset.arrays("train"), dataset.arrays("val")
    measured = overlap(train, val) if train is not None and val is not None else None
    if measured is not None:
        if tokenizer is not None and train is not None and val is not None:
            measured = replace(measured, disguised=near_copies(tokenizer, train, val))
        with contextlib.suppress(StrawberryError):  # a cache that can't be written is none
            write_atomic(file, json.dumps(asdict(measured)), parents=True)
    return measured


def _windows(parts: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Windows of a split, spread evenly."""
    every = [(part, at) for part in parts for at in range(0, part.size - WINDOW + 1, WINDOW)]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(WINDOWS, len(every))).astype(int))
    return [every[index][0][every[index][1] :][:WINDOW] for index in chosen]


def _pieces(parts: Sequence[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
    """The ids in overlapping pieces, so that no run is lost between two."""
    for part in parts:
        for at in range(0, max(1, part.size - RUN + 1), PIECE):
            yield part[at : at + PIECE + RUN - 1]
