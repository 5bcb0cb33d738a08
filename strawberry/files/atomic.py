"""Write files and folders that are whole or not there, and flush them to the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from strawberry.errors import StrawberryError
from strawberry.files.retry import retried

_PART = ".part-"
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an OSError (no space, no permission) into a StrawberryError that names the action."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        raise StrawberryError(f"{doing}: {reason}{where}") from error


def write_atomic(path: Path, content: str | bytes, *, parents: bool = False) -> None:
    """Write a file; a crash leaves either the old or the new one.

    Transient disk errors are retried. With `parents`, missing folders are created; without, a
    folder that was moved away is not created again.

    Raises:
        StrawberryError: the disk refuses it.
    """
    data = content.encode() if isinstance(content, str) else content

    def write() -> None:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        part = _part(path)
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        flush(path.parent)

    with explained(f"{path}: can't write"):
        retried(write)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` if the block succeeds, and is removed otherwise.

    `path` must not exist, or be an empty folder.
    """
    with explained(f"{path}: can't write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _part(path)
        part.mkdir()
        try:
            yield part
            for entry in (*sorted(part.iterdir()), part):
                flush(entry)
            if path.is_dir():
                path.rmdir()
            part.replace(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        flush(path.parent)


def remove_orphans(path: Path) -> None:
    """Remove leftovers of killed writers of `path`; requires its lock."""
    for part in path.parent.glob(f".{path.name}{_PART}*"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk; raises OSError."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows has no handle on a folder to flush
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not folder or error.errno not in _NO_FLUSH:  # some file systems can't flush a folder
            raise
    finally:
        os.close(descriptor)


def _part(path: Path) -> Path:
    """A new name beside `path`, for what is not whole yet."""
    return path.with_name(f".{path.name}{_PART}{secrets.token_hex(4)}")
