"""Locks that let one process at a time work: in a folder, or on an entry of the cache.

They are OS file locks, released when their process dies.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Final

import filelock

from strawberry.errors import StrawberryError
from strawberry.files.atomic import explained

HOLDER: Final = ".holder"


class FolderInUse(StrawberryError):  # noqa: N818 (a state of the folder)
    """Another process works in the folder."""


class FolderLock:
    """The lock of an existing folder; its file `.holder` names the process.

    Args:
        folder: the folder.
        work: the holder's activity, as in `is training here`.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self.folder = folder
        self.work = work
        self.file = folder / ".lock"
        self._lock = filelock.FileLock(self.file)
        self._holder = folder / HOLDER

    @property
    def held(self) -> bool:
        """True if this object holds the lock."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Acquire the lock at once; raises FolderInUse with the holder, or OSError."""
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            who = holder(self.folder) or "another process"
            raise FolderInUse(f"{self.folder}: {who} {self.work}") from error
        try:
            self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        except OSError:
            self._lock.release()
            raise

    def release(self) -> None:
        """Release the lock."""
        try:
            self._holder.unlink(missing_ok=True)
        finally:
            self._lock.release()


def holder(folder: Path) -> str | None:
    """The process that holds a folder's lock, as far as can be seen without taking the lock.

    A process of this machine that no longer runs holds nothing. One of another machine can't be
    asked, so it counts as running.
    """
    try:
        who = (folder / HOLDER).read_text()
    except OSError:
        return None
    named = re.match(r"process (\d+) on (.*)", who)
    if named is not None and named[2] == socket.gethostname():
        try:
            os.kill(int(named[1]), 0)
        except ProcessLookupError:
            return None
        except PermissionError:  # it runs, as another user's
            pass
    return who or "a process"


def entry_lock(cache: Path, key: str) -> filelock.BaseFileLock:
    """The lock for building the cache entry of `key`."""
    with explained("can't write the cache folder (STRAWBERRY_CACHE names another)"):
        folder = cache / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(folder / f"{key}.lock")
