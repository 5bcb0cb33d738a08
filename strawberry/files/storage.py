"""The cache folder, digests, and notes about files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from strawberry.errors import FieldError, StrawberryError
from strawberry.files.atomic import write_atomic

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
def about(field: str) -> Iterator[None]:
    """Turn a StrawberryError raised inside into one about that field of the component."""
    try:
        yield
    except StrawberryError as error:
        raise FieldError(field, str(error)) from error


def digest(*parts: Any) -> str:
    """A hexadecimal digest of JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
            write_atomic(self._note(files, states, about), json.dumps(value), parents=True)

    def _note(self, files: Sequence[Path], states: Sequence[os.stat_result], about: str) -> Path:
        return self._folder / f"{digest(about, [str(f) for f in files], stamps(states))[:32]}.json"


def stamps(states: Sequence[os.stat_result]) -> list[tuple[int, ...]]:
    """Metadata that distinguishes two states of a file without reading it."""
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]
