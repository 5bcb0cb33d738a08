"""Waiting for what comes back by itself: a folder whose disk is away, a lock that another holds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.lock import FolderInUse, FolderLock

PATIENCE = 60.0
"""Seconds to wait for it."""
FIRST, LONGEST = 0.05, 5.0
"""Seconds of the first pause, and of the longest."""

Say = Callable[[str], None]


class FolderMissing(StrawberryError):  # noqa: N818 (a state of the disk)
    """A folder that was there is not."""


def silent(text: str) -> None:
    """Tells nobody."""


def tries() -> Iterator[int]:
    """The numbers 0, 1, ... of tries, at once and then after pauses that double, for PATIENCE.

    There is a last one when the time is over.
    """
    deadline, pause, number = time.monotonic() + PATIENCE, FIRST, 0
    yield number
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause, number = min(2 * pause, LONGEST), number + 1
        yield number


def wait_for(folder: Path, say: Say = silent, there: Callable[[], bool] | None = None) -> None:
    """Until a folder is there, which is what `there` tells, or else whether there is one.

    Raises Away if it does not come back.
    """
    arrived = folder.is_dir if there is None else there
    for number in tries():
        if arrived():
            return
        if number == 0:
            say(f"{folder} is away; waiting for it for up to {PATIENCE:g} s")
    raise FolderMissing(
        f"{folder}: was moved away, or its disk is not there; once it is back the same command "
        "goes on"
    )


class LockedFolder:
    """An ablation's folder: one process has it at a time, and waits for it where it is away.

    Another folder that somebody makes under its name is not taken for it.

    Args:
        path: the folder.
        say: told of what is waited for.
    """

    def __init__(self, path: Path, say: Say) -> None:
        self.path = path
        self.say = say
        self._lock = FolderLock(path, "runs this ablation")
        self._inode = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it the folder is there, and nobody else's.

        Raises FolderInUse if another process keeps it, and StrawberryError if it can't be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self._inode = self._lock.file.stat().st_ino
        except OSError as error:
            reason = error.strerror or error
            raise StrawberryError(f"{self.path}: can't be written to: {reason}") from error
        try:
            yield
        finally:
            self._lock.release()

    def write(self, path: Path, text: str) -> None:
        """Replace a file below the folder; raises Away, or StrawberryError if the disk refuses."""
        while True:
            wait_for(self.path, self.say, self._there)
            try:
                write_atomic(path, text)
            except StrawberryError:
                if self._there():
                    raise
            else:
                return

    def _acquire(self) -> None:
        for number in tries():
            try:
                self._lock.acquire()
            except FolderInUse as error:
                refused = error
                if number == 0:
                    self.say(f"{error}; waiting for it for up to {PATIENCE:g} s")
            else:
                return
        raise refused

    def _there(self) -> bool:
        try:
            return self._lock.file.stat().st_ino == self._inode
        except OSError:
            return False
