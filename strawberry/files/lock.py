"""A lock that lets one process at a time work in a folder.

An OS file lock, released when its process dies; `.holder` names the process.
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
    """The lock of an existing folder.

    Args:
        folder: the folder.
        work: the holder's activity, as in `is training here`.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self.folder = folder
        self.work = work
        self.file = folder / ".lock"
        self._lock = filelock.FileLock(self.file)
        self._holder = folder / ".holder"

    @property
    def held(self) -> bool:
        """True if this object holds the lock."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Acquire the lock at once; raises FolderInUse with the holder, or OSError."""
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
        """Release the lock."""
        self._holder.unlink(missing_ok=True)
        self._lock.release()
