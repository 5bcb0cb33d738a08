"""Detect code other than the evaluation that reads the validation split during a run.

A component that reads it, or an optimizer, can train on what it is judged by. Trackers look on and
may read it; so may a data source that is made of another one.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from strawberry.contracts.data import Dataset, DataSource, Split, TokenizerSource

_MAY: Final = (Dataset, DataSource, TokenizerSource)
_SEARCHES: Final = ("gc.get_objects", "gc.get_referrers", "gc.get_referents")
_LOOP: Final = str(Path("strawberry", "training", "loop.py"))


class Readers:
    """The lines of foreign code from which a run's validation split was read.

    Attributes:
        foreign: files, and folders with their separator, of code that is not Strawberry's.
        files: files and folders of text and tokens, which that code could open by itself.
        lines: `FILE:LINE` of each reading.
    """

    active: Readers | None = None
    """Readers of the current run in this process."""

    def __init__(self, foreign: Sequence[str], files: Sequence[str] = ()) -> None:
        self.foreign, self.files = tuple(foreign), tuple(files)
        self.lines: dict[str, None] = {}
        if self.foreign:
            _listen()

    def note(self, split: Split) -> None:
        """Note who reads a split at this moment, if it isn't the one for training."""
        if split != "train" and self.foreign:
            self._note(sys._getframe(1))  # noqa: SLF001 (there is no other way to ask)

    def opened(self, path: str) -> None:
        """Note who opens a file at this moment, if it is one of text."""
        if os.path.realpath(path).startswith(self.files):
            self._note(sys._getframe(2))  # noqa: SLF001 (as above)

    def searched(self) -> None:
        """Note foreign code that looks through all objects at this moment, by itself."""
        frame = sys._getframe(2)  # noqa: SLF001 (as above)
        if frame.f_code.co_filename.startswith(self.foreign):
            self._note(frame)

    def _note(self, frame: FrameType | None) -> None:
        while frame is not None and not frame.f_code.co_filename.endswith(_LOOP):
            file = frame.f_code.co_filename
            if file.startswith(self.foreign) and not _may(frame.f_locals.get("self")):
                self.lines[f"{file}:{frame.f_lineno}"] = None
                return
            frame = frame.f_back


@functools.cache
def _listen() -> None:
    """Follow what is opened and looked through, from now on."""
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and Readers.active is not None:
        if Readers.active.foreign and isinstance(arguments[0], str):
            Readers.active.opened(arguments[0])
    elif event in _SEARCHES and Readers.active is not None and Readers.active.foreign:
        Readers.active.searched()


def _may(caller: object) -> bool:
    """Return whether this caller may read it."""
    from strawberry.contracts.training import Tracker  # which needs torch

    return isinstance(caller, (*_MAY, Tracker))


def note(split: Split) -> None:
    """Report a reader to the current run, if any."""
    if Readers.active is not None:
        Readers.active.note(split)
