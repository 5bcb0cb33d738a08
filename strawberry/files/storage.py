"""The cache folder, atomic writes, locks, file identities."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strawberry.errors import FieldError, StrawberryError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PART = ".part-"
_SETTLED_NS = 100_000_000  # coarser than any file clock that is in use


class DamagedFileError(StrawberryError):
    """A file written by Strawberry has changed; the message names it."""


def cache_folder() -> Path:
    """The folder for derived files: `STRAWBERRY_CACHE`, or the platform's cache folder."""
    if chosen := os.environ.get("STRAWBERRY_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "strawberry"


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an OSError (no space, no permission) into a StrawberryError that names the action."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        raise StrawberryError(f"{doing}: {reason}{where}") from error


@contextlib.contextmanager
def about(field: str) -> Iterator[None]:
    """Turn a StrawberryError raised inside into one about that field of the component."""
    try:
        yield
    except StrawberryError as error:
        raise FieldError(field, str(error)) from error


def lock(cache: Path, key: str) -> BaseFileLock:
    """The lock for building the cache entry of `key`; the OS releases a dead holder's lock."""
    from filelock import FileLock

    with explained("can't write the cache folder (STRAWBERRY_CACHE names another)"):
        folder = cache / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{key}.lock")


def write_file(path: Path, content: bytes, *, parents: bool = True) -> None:
    """Write a file; a crash leaves either the old or the new one.

    A missing folder is created. With `parents` false, only the last folder is created, so a folder
    that was moved away is not created again.
    """
    with explained(f"can't write {path}"):
        path.parent.mkdir(parents=parents, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}{_PART}", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` if the block succeeds, and is removed otherwise.

    `path` must not exist, or be an empty folder.
    """
    with explained(f"can't write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}{_PART}", dir=path.parent))
        try:
            yield part
            for entry in sorted(part.iterdir()):
                _sync(entry)
            part.chmod(0o777 & ~_umask())
            _sync(part)
            if path.is_dir():
                path.rmdir()
            part.replace(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _sync(path.parent)


def remove_orphans(path: Path) -> None:
    """Remove leftovers of killed writers of `path`; requires its lock."""
    for part in path.parent.glob(f".{path.name}{_PART}*"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def digest(*parts: Any) -> str:
    """A hexadecimal digest of JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class FileFingerprints:
    """Values computed from files, cached while the files are unchanged.

    Unchanged means equal device, inode, size, and times of content and metadata. An entry is
    trusted only if it is younger than the files by more than the clock's resolution, so a second
    write within one tick is not missed.
    """

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "notes"

    def recall(self, files: Sequence[Path], about: str) -> Any:
        """The cached value of these files under `about`, or None."""
        states = [path.stat() for path in files]
        note = self._note(files, states, about)
        try:
            newest = max(max(s.st_mtime_ns, s.st_ctime_ns) for s in states)
            if note.stat().st_mtime_ns <= newest + _SETTLED_NS:
                return None
            return json.loads(note.read_bytes())
        except (OSError, ValueError):
            return None

    def note(self, files: Sequence[Path], about: str, value: Any) -> None:
        """Cache a JSON value of these files; an unwritable cache is no error."""
        states = [path.stat() for path in files]
        with contextlib.suppress(StrawberryError):
            write_file(self._note(files, states, about), json.dumps(value).encode())

    def _note(self, files: Sequence[Path], states: Sequence[os.stat_result], about: str) -> Path:
        return self._folder / f"{digest(about, [str(f) for f in files], stamps(states))[:32]}.json"


def stamps(states: Sequence[os.stat_result]) -> list[tuple[int, ...]]:
    """Metadata that distinguishes two states of a file without reading it."""
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle on a folder to flush
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems can't flush a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
