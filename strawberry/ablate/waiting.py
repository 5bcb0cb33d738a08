"""Wait for a missing folder (an unmounted disk), or for a lock of another process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from strawberry.errors import StrawberryError
from strawberry.files.atomic import explained, write_atomic
from strawberry.files.lock import FolderInUse, FolderLock

PATIENCE = 60.0
"""Longest wait, in seconds."""
FIRST, LONGEST = 0.05, 5.0
"""First and longest pause, in seconds."""

Say = Callable[[str], None]


class FolderMissing(StrawberryError):  # noqa: N818 (a state of the disk)
    """A folder disappeared."""


def silent(text: str) -> None:
    """Ignore a message."""


def tries() -> Iterator[int]:
    """Yield the tries 0, 1, ...: one at once, then after pauses that double, for PATIENCE seconds.

    A last try follows when the time is over.
    """
    deadline, pause, number = time.monotonic() + PATIENCE, FIRST, 0
    yield number
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause, number = min(2 * pause, LONGEST), number + 1
        yield number


def wait_for(folder: Path, say: Say = silent, exists: Callable[[], bool] | None = None) -> None:
    """Wait until `exists()` is true; without it, until the folder exists.

    Raises FolderMissing after PATIENCE seconds.
    """
    exists = exists or folder.is_dir
    for number in tries():
        if exists():
            return
        if number == 0:
            say(f"{folder} is not accessible; waiting for it for up to {PATIENCE:g} s")
    raise FolderMissing(
        f"{folder}: was moved, or its disk is not mounted; run the same command to "
        "continue once it is back"
    )


class LockedFolder:
    """The folder of an ablation or a search, locked for one process; waits while it is missing.

    A new folder of the same name is not accepted in its place.

    Args:
        path: the folder.
        say: receives messages about waiting.
        what: what the process does that holds it, for the others.
    """

    def __init__(self, path: Path, say: Say, what: str = "runs this ablation") -> None:
        self.path = path
        self.say = say
        self._lock = FolderLock(path, what)
        self._inode = 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """In this context the folder exists and is locked.

        Raises FolderInUse if another process holds the lock, and StrawberryError if it can't be
        created.
        """
        with contextlib.ExitStack() as ending:
            with explained(f"{self.path}: can't write"):
                self.path.mkdir(parents=True, exist_ok=True)
                self._acquire()
                ending.callback(self._lock.release)
                self._inode = self._lock.file.stat().st_ino
            yield

    def write(self, path: Path, text: str) -> None:
        """Replace a file in the folder.

        Raises FolderMissing as `wait_for` does, and StrawberryError on a disk error.
        """
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
