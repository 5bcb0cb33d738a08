"""Expand a path of a recipe into files."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from strawberry.data.documents import LINES
from strawberry.errors import StrawberryError

_PLAIN: Final = (".txt", ".md", ".json", *LINES)
_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
TEXT_SUFFIXES: Final = (*_PLAIN, *(a + b for a in _PLAIN for b in _COMPRESSED))
"""Suffixes of files taken from a folder; a named file, or one that a pattern matches, may have
another.
"""


class MissingError(StrawberryError):
    """A path does not exist."""


def find_files(
    path: str, folders: Sequence[Path], suffixes: Sequence[str] = TEXT_SUFFIXES
) -> list[Path]:
    """The files that `path` (a file, a folder or a pattern) refers to, sorted by name.

    A relative path is looked up in each of `folders`, in order. In a folder, all files with one of
    `suffixes` are taken, recursively, without hidden ones. Links are followed; a file with two
    names is taken once.

    Raises:
        MissingError: there are no files.
        StrawberryError: an existing folder contains none, a folder can't be read, or a link is
            broken.
    """
    if not path:
        raise StrawberryError("the path is empty")
    places = candidates(path, folders)
    for place in places:
        if place.is_dir():
            files = _sorted((f for f in _below(place) if _has(f, suffixes)), place)
            if not files:
                kinds = ", ".join(_PLAIN if suffixes is TEXT_SUFFIXES else suffixes)
                raise StrawberryError(f"{path}: no files of these kinds in this folder: {kinds}")
            return files
        if place.exists():
            return [place]
        if glob.has_magic(str(place)) and (files := _matches(place)):
            return files
    what = "no file matches" if glob.has_magic(path) else "no such file or folder"
    raise MissingError(f"{path}: {what}; looked at {', '.join(map(str, places))}")


def candidates(path: str, folders: Sequence[Path]) -> list[Path]:
    """The locations of a path: itself if absolute, else in each of `folders`."""
    given = Path(path).expanduser()
    return list(dict.fromkeys((folder / given).absolute() for folder in folders))


def _matches(pattern: Path) -> list[Path]:
    """The files that a pattern matches; `**` matches any folders except hidden ones."""
    parts = pattern.parts
    if "**" not in parts:
        matches = map(Path, glob.glob(str(pattern)))  # noqa: PTH207 (a pattern may be absolute)
        return _sorted((file for file in matches if file.is_file()), Path(pattern.anchor))
    # Not glob's own `**`, which goes around in loops of links.
    at = parts.index("**")
    bases = map(Path, glob.glob(str(Path(*parts[:at]))))  # noqa: PTH207 (the same)
    return _sorted(
        (f for base in bases for f in _below(base) if _fits(f.relative_to(base).parts, parts[at:])),
        Path(pattern.anchor),
    )


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path matches a pattern, component by component."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_fits(names[i:], pattern[1:]) for i in range(len(names) + 1))
    fits = bool(names) and fnmatch.fnmatchcase(names[0], pattern[0])
    return fits and _fits(names[1:], pattern[1:])


def _sorted(files: Iterable[Path], root: Path) -> list[Path]:
    """Files by their names below `root`; duplicates of one file only once."""
    ordered = sorted(files, key=lambda file: file.relative_to(root).as_posix())
    return list({os.path.realpath(file): file for file in reversed(ordered)}.values())[::-1]


def _has(file: Path, suffixes: Sequence[str]) -> bool:
    return file.name.lower().endswith(tuple(suffixes))


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder, recursively, with links followed and each folder entered once."""
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        state = Path(root).stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(root, name) for name in names if not name.startswith(".")):
            if file.is_symlink() and not file.exists():
                raise StrawberryError(f"{file}: a link to {file.readlink()}, which does not exist")
            yield file


def _refuse(error: OSError) -> NoReturn:
    raise StrawberryError(f"{error.filename}: {error.strerror or error}") from error
