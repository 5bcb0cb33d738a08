"""Documents out of columns: parquet and Arrow files, a batch of rows at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from strawberry.data import read_documents
from strawberry.errors import StrawberryError

LINES = (".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.xz", ".jsonl.zst")
SUFFIXES = (".parquet", ".arrow", *LINES)
"""The files that can be read."""

_ROWS = 1024


def check_column(schema: Any, field: str, where: str) -> None:
    """Raise StrawberryError unless a pyarrow schema has a column `field` of text.

    `meta.text` is the field `text` of a column of structures `meta`.
    """
    import pyarrow as pa

    column, *inner = path_of(schema, field)
    if column not in schema.names:
        raise StrawberryError(f"{where}: no column {field!r}; it has {', '.join(schema.names)}")
    kind = schema.field(column).type
    for name in inner:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            raise StrawberryError(f"{where}: no column {field!r}; {column} holds {kind}")
        kind = kind.field(name).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
        raise StrawberryError(f"{where}: column {field!r} holds {kind}, not text")


def path_of(schema: Any, field: str) -> list[str]:
    """The column that a field stands in, and the names that lead to it from there."""
    return [field] if field in schema.names else field.split(".")


def schema_of(path: Path) -> Any:
    """The pyarrow schema of a file; None of lines of JSON, which say what they hold one by one.

    Raises StrawberryError if it is no such file, or damaged.
    """
    if not path.name.lower().endswith(SUFFIXES):
        kinds = ", ".join(SUFFIXES)
        raise StrawberryError(f"{path}: not a file of columns ({kinds}); `use: text` reads text")
    if path.name.lower().endswith(LINES):
        return None
    with _explained(path), _opened(path) as (schema, _):
        return schema


def read_column(path: Path, field: str) -> Iterator[str]:
    """The documents of a file, empty or null ones as such; raises if it is damaged."""
    if path.name.lower().endswith(LINES):
        yield from read_documents(path, field)
        return
    with _explained(path), _opened(path, [field]) as (schema, batches):
        yield from texts(batches, path_of(schema, field))


def texts(batches: Iterable[Any], path: list[str]) -> Iterator[str]:
    """The texts of a column of record batches or tables; a null is an empty one."""
    import pyarrow.compute as pc

    for batch in batches:
        column = batch.column(path[0])
        if path[1:]:
            column = pc.struct_field(column, path[1:])
        for text in column.to_pylist():
            yield text or ""


@contextlib.contextmanager
def _opened(path: Path, columns: list[str] | None = None) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema of a file, and its record batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file.schema_arrow, file.iter_batches(_ROWS, columns=columns)
        return
    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":  # the form with an index at its end
            reader = pa.ipc.open_file(source)
            yield reader.schema, map(reader.get_batch, range(reader.num_record_batches))
        else:
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            yield stream.schema, iter(stream)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of which file pyarrow's refusal is."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise StrawberryError(f"{path}: damaged, or not what its name says: {reason}") from error
