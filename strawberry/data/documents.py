"""Documents out of files: which files a path means, and what each of them holds.

A `.jsonl` file holds a document a line (a string, or an object with a text field), a `.json` file a
list of strings, and any other text file is one document. Nothing is ever unpickled.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from strawberry.errors import StrawberryError

TEXT_SUFFIXES = (".txt", ".md", ".json", ".jsonl")
"""What is taken of a folder; a file that is named, or that a pattern matches, may have another."""

PICKLED_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".strawberry", ".joblib", ".npy", ".npz"}
)
TEXT_INSTEAD = (
    "give the text that it was made from (.txt, .jsonl, or .json with a list of strings), or the "
    "folder that `strawberry data prepare` makes of that text, as data {use: tokens, path: ...}; "
    "ids of nanoGPT or llm.c, and .npy, are data {use: shards, path: ...}; a data set of the seed "
    "project goes through `strawberry import`"
)
"""What to do about a pickled data set."""

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def find_files(
    path: str, folders: Sequence[Path], suffixes: Sequence[str] = TEXT_SUFFIXES
) -> list[Path]:
    """The files that `path` (a file, a folder or a pattern) means, sorted by name.

    A relative path is looked for in each of `folders`, in order. Of a folder, the files in it and
    below that have one of `suffixes` are taken, without hidden ones.

    Raises:
        StrawberryError: there are none.
    """
    if not path:
        raise StrawberryError("the path is empty")
    given = Path(path).expanduser()
    places = list(dict.fromkeys((folder / given).absolute() for folder in folders))
    for place in places:
        if place.is_dir():
            found = sorted(
                _files(place, tuple(suffixes)), key=lambda file: file.relative_to(place).as_posix()
            )
            if not found:
                kinds = ", ".join(suffixes)
                raise StrawberryError(f"{path}: no files of these kinds in this folder: {kinds}")
            return found
        if place.exists():
            return [place]
        if matches := sorted(glob.glob(str(place), recursive=True)):  # noqa: PTH207 (patterns may be absolute)
            files = [Path(match) for match in matches if Path(match).is_file()]
            if files:
                return files
    what = "no file matches" if glob.has_magic(path) else "no such file or folder"
    raise StrawberryError(f"{path}: {what}; looked at {', '.join(map(str, places))}")


def read_documents(path: Path, field: str = "text") -> Iterator[str]:
    """The documents of a file, without empty ones; `field` is the text field of JSON objects.

    A lone surrogate in JSON becomes the replacement character.

    Raises:
        StrawberryError: the file can't be read, or is not what its name says; with the position.
    """
    refuse_pickle(path)
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        documents = _lines(path, field)
    elif suffix == ".json":
        documents = _list(path, decode(path, read_bytes(path)), field)
    else:
        documents = iter([decode(path, read_bytes(path))])
    for document in documents:
        if document:
            yield encodable(document)


def read_bytes(path: Path) -> bytes:
    """The content of a file; raises StrawberryError if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StrawberryError(f"{path}: {error.strerror or error}") from error


def refuse_pickle(path: Path, instead: str = TEXT_INSTEAD) -> None:
    """Raise StrawberryError if a file is a pickle, an archive or an array, by name or content.

    By its name it is refused even if it is not there. `instead` says what to do.
    """
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        pass  # said in better words by whoever reads it next
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if path.suffix.lower() in PICKLED_SUFFIXES or pickled or start.startswith(b"PK\x03\x04"):
        raise StrawberryError(
            f"{path}: a pickle or binary file, which is never opened because a pickle can run code "
            f"as it is read; {instead}"
        )
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise StrawberryError(f"{path}: compressed with {name}; unpack it first")


def decode(path: Path, raw: bytes, line: int = 1, offset: int = 0) -> str:
    """UTF-8 (with or without a mark) as text; raises StrawberryError with the position.

    `raw` begins at that line and at that offset of the file.
    """
    try:
        text = raw.decode("utf-8" if offset else "utf-8-sig")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        at = offset + error.start
        raise StrawberryError(
            f"{path}:{line}: not UTF-8: byte {raw[error.start]:#04x} at offset {at}; "
            "convert the file (`iconv -f latin1 -t utf-8`, for one)"
        ) from error
    if "\0" in text[:4096]:
        raise StrawberryError(f"{path}: a binary file, not text (it holds zero bytes)")
    return text


def encodable(text: str) -> str:
    """The text, with lone surrogates replaced, so that it has a UTF-8 form."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and name.lower().endswith(suffixes):
                yield Path(root, name)


def _lines(path: Path, field: str) -> Iterator[str]:
    """The documents of a `.jsonl` file, a line at a time: it may be larger than memory."""
    offset = 0
    try:
        # Bytes end at line feeds alone, not at the Unicode separators that JSON strings may hold.
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = decode(path, raw, number, offset).rstrip("\n")
                offset += len(raw)
                if line.strip():
                    yield _document(_parse(path, line, number), field, f"{path}:{number}")
    except OSError as error:
        raise StrawberryError(f"{path}: {error.strerror or error}") from error


def _list(path: Path, text: str, field: str) -> Iterator[str]:
    value = _parse(path, text, 1)
    if not isinstance(value, list):
        kind = type(value).__name__
        raise StrawberryError(f"{path}: expected a list of strings at the top, not a {kind}")
    for index, item in enumerate(value):
        yield _document(item, field, f"{path}: item {index}")


def _document(value: Any, field: str, where: str) -> str:
    if isinstance(value, dict):
        if field not in value:
            has = ", ".join(sorted(map(str, value))[:8]) or "nothing"
            raise StrawberryError(f"{where}: no field {field!r} in this object (it has {has})")
        value = value[field]
    if not isinstance(value, str):
        raise StrawberryError(f"{where}: expected text, not a {type(value).__name__}")
    return value


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"{path}:{line + error.lineno - 1}:{error.colno}"
        raise StrawberryError(f"{at}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise StrawberryError(f"{path}:{line}: not JSON: nested too deeply") from error
    except ValueError as error:  # an integer of too many digits
        raise StrawberryError(f"{path}:{line}: not JSON: {error}") from error
