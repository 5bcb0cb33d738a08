"""The documents of a text file.

A `.jsonl` or `.ndjson` file has one document a line (a string, or an object with a text field). A
`.json` file has a list of documents, or one a line. Any other text file is one document. Each may
be compressed. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from strawberry.data.reading import decode, opened
from strawberry.errors import StrawberryError
from strawberry.plugin.words import closest

LINES = (".jsonl", ".ndjson", ".jsonlines")
"""Suffixes of files with one JSON value a line."""
_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})


def read_documents(path: Path, field: str = "text") -> Iterator[str]:
    """The documents of a file; an empty one, or null in JSON, is an empty string.

    A lone surrogate in JSON becomes the replacement character.

    Args:
        path: the file.
        field: the text field of JSON objects; `meta.text` is the field `text` of the field `meta`.

    Raises:
        StrawberryError: the file can't be read, or its content doesn't match its suffix; with the
            position.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    while len(suffixes) > 1 and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    with opened(path) as file:
        if suffixes and suffixes[-1] in LINES:
            documents = _lines(path, file, field)
        elif suffixes[-1:] == [".json"]:
            documents = _json(path, file.read(), field)
        else:
            documents = iter([decode(path, file.read())])
        for document in documents:
            yield encodable(document)


def encodable(text: str) -> str:
    """The text with lone surrogates replaced, so that it can be encoded as UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _lines(path: Path, file: IO[bytes], field: str) -> Iterator[str]:
    """The documents of a `.jsonl` file, read line by line, because it may exceed memory."""
    offset = 0
    # Bytes end at line feeds alone, not at the Unicode separators that JSON strings may hold.
    for number, raw in enumerate(file, 1):
        line = decode(path, raw, number, offset).rstrip("\n")
        offset += len(raw)
        if line.strip():
            yield _document(_parse(path, line, number), field, f"{path}:{number}")


def _json(path: Path, raw: bytes, field: str) -> Iterator[str]:
    """The documents of a `.json` file: a list, or one document a line."""
    text = decode(path, raw)
    first, _, rest = text.partition("\n")
    if rest.strip() and _is_object(first):
        return _lines(path, io.BytesIO(raw), field)
    return _list(path, text, field)


def _is_object(text: str) -> bool:
    """Return whether a line is a JSON object by itself."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _list(path: Path, text: str, field: str) -> Iterator[str]:
    value = _parse(path, text, 1)
    if not isinstance(value, list):
        kind = type(value).__name__
        raise StrawberryError(
            f"{path}: expected a list at the top level, or an object on each line, got one {kind}"
        )
    for index, item in enumerate(value):
        yield _document(item, field, f"{path}: item {index}")


def _document(value: Any, field: str, where: str) -> str:
    if isinstance(value, dict):
        value = _field(value, field, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise StrawberryError(f"{where}: expected text, got a {type(value).__name__}")
    return value


def _field(value: dict[str, Any], field: str, where: str) -> Any:
    """The value of a field, by its name or its path; fields of null are null."""
    if field in value:
        return value[field]
    at: Any = value
    for name in field.split("."):
        if at is None:
            return None
        if not isinstance(at, dict) or name not in at:
            raise StrawberryError(
                f"{where}: no field {field!r} in this object ({_has(value, field)})"
            )
        at = at[name]
    return at


def _has(value: dict[str, Any], field: str) -> str:
    """The fields of an object, with a suggestion."""
    nested = [
        f"{name}.{inner}" for name, child in value.items() if isinstance(child, dict)
        for inner in child
    ]  # fmt: skip
    same = [path for path in nested if path.endswith(f".{field}")]
    near = same[0] if same else closest(field, [*map(str, value), *nested])
    has = ", ".join(sorted(map(str, value))[:8]) or "nothing"
    return f"it has {has}" + (f"; did you mean {near!r}?" if near else "")


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
