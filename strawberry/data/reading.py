"""Read a text file's bytes: decompress them, and refuse binary content."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from strawberry.errors import StrawberryError

PICKLED_SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".strawberry", ".joblib", ".npy", ".npz"}
)
TEXT_INSTEAD = (
    "give the original text (.txt, .jsonl, or .json with a list of strings); or the folder "
    "that `strawberry data prepare` makes of it, as data {use: tokens, path: ...}. For ids "
    "of nanoGPT or llm.c, and .npy, use data {use: shards, path: ...}. For a data set of the "
    "original project, use `strawberry original import`"
)
"""Advice about a pickled data set."""

_START: Final = 512
_COLUMNS: Final = "`data: {use: datasets, files: ...}` of strawberry-hf reads it"
_UNPACK: Final = "unpack it first"
_FOREIGN: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"PAR1", f"a Parquet file: {_COLUMNS}"),
    (0, b"ARROW1", f"an Arrow file: {_COLUMNS}"),
    (0, b"\xff\xff\xff\xff", f"an Arrow stream: {_COLUMNS}"),
    (0, b"STRWTOK", "a token file: `data: {use: tokens, path: ...}` reads it"),
    (0, b"PK\x03\x04", f"a zip archive: {_UNPACK}"),
    (0, b"7z\xbc\xaf", f"a 7z archive: {_UNPACK}"),
    (0, b"Rar!", f"a rar archive: {_UNPACK}"),
    (257, b"ustar", f"a tar archive: {_UNPACK}"),
    (0, b"\x04\x22\x4d\x18", f"compressed with lz4: {_UNPACK}"),
    (0, b"%PDF-", "a PDF: extract its text first"),
    (0, b"{\\rtf", "a rich text document: save it as plain text first"),
    (0, b"\x89HDF", "an HDF5 file: write its text to a .jsonl first"),
    (0, b"SQLite format 3", "a SQLite database: write its text to a .jsonl first"),
)
"""Magic bytes with their position and meaning."""
_MARKS: Final = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Byte order marks of other encodings."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, decompressed if gzip, bzip2, xz or zstd by content.

    Raises:
        StrawberryError: it can't be read, is damaged, or its first bytes are not text.
    """
    refuse_pickle(path)
    form = ""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
        _refuse_foreign(path, start)
        form, opener = _compression(start)
        with opener(path) as file:
            if form:
                _refuse_foreign(path, file.peek(_START)[:_START])
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _damaged(path, form, error) from error
    except OSError as error:
        if form and error.errno is None:  # that is how bz2 says so
            raise _damaged(path, form, error) from error
        raise StrawberryError(f"{path}: {error.strerror or error}") from error
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise _damaged(path, form, error) from error
        raise


def read_bytes(path: Path) -> bytes:
    """The raw content of a file; raises StrawberryError if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StrawberryError(f"{path}: {error.strerror or error}") from error


def refuse_pickle(path: Path, instead: str = TEXT_INSTEAD) -> None:
    """Raise StrawberryError if a file is a pickle or an array, by name or content.

    The name alone is refused even if the file does not exist. `instead` is the advice.
    """
    start = b""
    with contextlib.suppress(OSError), path.open("rb") as file:  # said by whoever reads it next
        start = file.read(8)
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if path.suffix.lower() in PICKLED_SUFFIXES or pickled or start.startswith(b"\x93NUMPY"):
        raise StrawberryError(
            f"{path}: a pickle or binary file, which is never opened because a pickle can "
            f"run code while it is read; {instead}"
        )


def decode(path: Path, raw: bytes, line: int = 1, offset: int = 0) -> str:
    """Decode UTF-8 (with or without a byte order mark); raises StrawberryError with the position.

    `raw` begins at this line and offset of the file.
    """
    if not offset and (other := _other_encoding(raw)):
        raise StrawberryError(
            f"{path}: {other.upper()}, not UTF-8; convert it: `iconv -f {other} -t utf-8`"
        )
    try:
        text = raw.decode("utf-8" if offset else "utf-8-sig")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        at = offset + error.start
        raise StrawberryError(
            f"{path}:{line}: not UTF-8: byte {raw[error.start]:#04x} at offset {at}; "
            "convert text in another encoding, for example with `iconv -f windows-1252 -t "
            "utf-8`"
        ) from error
    if "\0" in text[:4096]:
        raise StrawberryError(f"{path}: a binary file, not text (it contains zero bytes)")
    return text


def _other_encoding(raw: bytes) -> str:
    """The name of a UTF-16 or UTF-32 encoding, or an empty string."""
    for mark, name in _MARKS.items():
        if raw.startswith(mark):
            return name
    # Without a mark: of letters of most texts in Latin script every other byte is zero.
    sample = raw[: 4096 // 4 * 4]
    zeros = [sample[place::4].count(0) / max(1, len(sample) // 4) for place in range(4)]
    if any(0.05 < share < 0.7 for share in zeros):
        return ""
    shape = "".join("0" if share > 0.5 else "x" for share in zeros)
    wide = {"x0x0": "utf-16le", "0x0x": "utf-16be", "x000": "utf-32le", "000x": "utf-32be"}
    return wide.get(shape, "")


def _refuse_foreign(path: Path, start: bytes) -> None:
    for at, magic, meaning in _FOREIGN:
        if start[at : at + len(magic)] == magic:
            raise StrawberryError(f"{path}: expected text, got {meaning}")


def _compression(start: bytes) -> tuple[str, Callable[[Path], Any]]:
    """The compression format, empty for none, and a function that opens it."""
    for magic, name, opener in (
        (b"\x1f\x8b", "gzip", gzip.open),
        (b"BZh", "bzip2", bz2.open),
        (b"\xfd7zXZ", "xz", lzma.open),
        (b"\x28\xb5\x2f\xfd", "zstd", _open_zstd),
    ):
        if start.startswith(magic):
            return name, opener
    return "", lambda path: path.open("rb")


def _open_zstd(path: Path) -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    return zstd.open(path)


def _damaged(path: Path, form: str, error: Exception) -> StrawberryError:
    return StrawberryError(f"{path}: damaged or truncated as {form}: {error}")
