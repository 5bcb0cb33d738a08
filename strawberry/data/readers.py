"""Detect code other than the evaluation that reads the validation split during a run.

A component that reads it, or an optimizer, can train on what it is judged by. Trackers look on and
may read it; so may a data source that is made of another one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from strawberry.contracts.data import Dataset, DataSource, Split, TokenizerSource

_MAY: Final = (Dataset, DataSource, TokenizerSource)
_LOOP: Final = str(Path("strawberry", "training", "loop.py"))


class Readers:
    """The lines of foreign code from which a run's validation split was read.

    Attributes:
        foreign: files, and folders with their separator, of code that is not Strawberry's.
        lines: `FILE:LINE` of each reading.
    """

    active: Readers | None = None
    """Readers of the current run in this process."""

    def __init__(self, foreign: Sequence[str]) -> None:
        self.foreign = tuple(foreign)
        self.lines: dict[str, None] = {}

    def note(self, split: Split) -> None:
        """Note who reads a split at this moment, if it isn't the one for training."""
        if split == "train" or not self.foreign:
            return
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (there is no other way to ask)
        while frame is not None and not frame.f_code.co_filename.endswith(_LOOP):
            file = frame.f_code.co_filename
            if file.startswith(self.foreign) and not _may(frame.f_locals.get("self")):
                self.lines[f"{file}:{frame.f_lineno}"] = None
                return
            frame = frame.f_back


def _may(caller: object) -> bool:
    """Return whether this caller may read it."""
    from strawberry.contracts.training import Tracker  # which needs torch

    return isinstance(caller, (*_MAY, Tracker))


def note(split: Split) -> None:
    """Report a reader to the current run, if any."""
    if Readers.active is not None:
        Readers.active.note(split)
