"""A folder that one process works in at a time.

The lock is the operating system's, so that it ends with its holder, however that one ends; beside
it stands who that is.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import filelock

from strawberry.errors import StrawberryError


class FolderInUse(StrawberryError):  # noqa: N818 (a state of the folder)
    """Another process works in the folder."""


class FolderLock:
    """The lock of a folder, which has to be there.

    Args:
        folder: what is locked.
        work: what the holder does there, as `is training here`.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self.folder = folder
        self.work = work
        self.file = folder / ".lock"
        self._lock = filelock.FileLock(self.file)
        self._holder = folder / ".holder"

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the lock at once, or raise FolderInUse with who has it; raises OSError too."""
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            try:
                who = self._holder.read_text()
            except OSError:
                who = "another process"
            raise FolderInUse(f"{self.folder}: {who} {self.work}") from error
        self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")

    def release(self) -> None:
        """Give the lock back."""
        self._holder.unlink(missing_ok=True)
        self._lock.release()
