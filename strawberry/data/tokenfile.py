"""Token files: a header of 128 bytes, then the ids as little-endian uint16 or uint32.

The header has, in this order: magic (8 bytes), format version and bytes per id (uint32), number of
ids, vocabulary size and bytes of text (uint64), the split's name (8 bytes), SHA-256 of the ids (32
bytes), zeros, and a CRC-32 of everything before. Files are memory-mapped.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from strawberry.errors import StrawberryError
from strawberry.files.storage import DamagedFileError, FileFingerprints

SUFFIX = ".tok"
MAGIC = b"STRWTOK\n"
VERSION = 1
_HEADER = struct.Struct("<8sIIQQQ8s32s44xI")
_CHUNK = 1 << 22  # ids that are checked at a time


@dataclass(frozen=True, slots=True)
class TokenFile:
    """An open token file.

    Attributes:
        path: its path.
        ids: all ids, memory-mapped, uint16 or uint32.
        vocab_size: upper bound of the ids, exclusive.
        n_bytes: UTF-8 bytes of the ids' text.
        split: `train`, `val`, or empty.
        sha256: hexadecimal digest of the ids.
    """

    path: Path
    ids: npt.NDArray[Any]
    vocab_size: int
    n_bytes: int
    split: str
    sha256: str


class TokenWriter:
    """Writes a token file piece by piece; the header comes last and makes it valid."""

    def __init__(self, path: Path, vocab_size: int, split: str = "") -> None:
        self.path = path
        self.count = 0
        self.n_bytes = 0
        self.vocab_size = vocab_size
        self.split = split
        self._dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self._hash = hashlib.sha256()
        self._file = path.open("wb")
        self._file.write(bytes(_HEADER.size))

    def append(self, ids: npt.NDArray[Any], n_bytes: int) -> None:
        """Append ids for `n_bytes` of text; raises StrawberryError if one is too large."""
        if not ids.size:
            return
        if int(ids.max()) >= self.vocab_size or int(ids.min()) < 0:
            raise StrawberryError(
                f"{self.path.name}: the tokenizer returned an id outside its own vocabulary of "
                f"{self.vocab_size}"
            )
        raw = np.ascontiguousarray(ids, dtype=self._dtype).data
        self._hash.update(raw)
        self._file.write(raw)
        self.count += ids.size
        self.n_bytes += n_bytes

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the ids so far."""
        return self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            split = self.split.encode().ljust(8, b"\0")
            size, digest = self._dtype.itemsize, self._hash.digest()
            fields = (MAGIC, VERSION, size, self.count, self.vocab_size, self.n_bytes)
            plain = _HEADER.pack(*fields, split, digest, 0)
            self._file.seek(0)
            self._file.write(_HEADER.pack(*fields, split, digest, zlib.crc32(plain[:-4])))
        self._file.close()


def open_tokens(path: Path, identities: FileFingerprints) -> TokenFile:
    """Map a verified token file: header and size every time, ids once for each file.

    Raises:
        DamagedFileError: it is truncated, altered, or has an id outside its vocabulary.
        StrawberryError: it is not a token file, or does not exist.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise DamagedFileError(f"{path}: {error.strerror or error}") from error
    if header[: len(MAGIC)] != MAGIC:
        raise DamagedFileError(f"{path}: not a token file (wrong magic number)")
    if len(header) < _HEADER.size:
        raise DamagedFileError(f"{path}: truncated within the header, at {len(header)} bytes")
    if zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
        raise DamagedFileError(f"{path}: damaged header: wrong checksum")
    _, version, width, count, vocab_size, n_bytes, split, digest, _ = _HEADER.unpack(header)
    if version != VERSION:
        raise StrawberryError(f"{path}: format {version}; this Strawberry reads format {VERSION}")
    if size != _HEADER.size + count * width:
        expected = _HEADER.size + count * width
        raise DamagedFileError(
            f"{path}: {size} bytes long, expected {expected}; truncated or overwritten"
        )
    dtype = np.dtype(f"<u{width}")
    ids: npt.NDArray[Any] = np.empty(0, dtype)
    if count:
        # A plain view: a memmap's own indexing has a cost for every call.
        ids = np.asarray(np.memmap(path, dtype, mode="r", offset=_HEADER.size, shape=(count,)))
    opened = TokenFile(path, ids, vocab_size, n_bytes, split.rstrip(b"\0").decode(), digest.hex())
    if identities.recall([path], "tokens verified") != opened.sha256:
        _verify(opened)
        identities.note([path], "tokens verified", opened.sha256)
    return opened


def _verify(file: TokenFile) -> None:
    """Check every id against the vocabulary, and all of them against the checksum."""
    checksum = hashlib.sha256()
    wrong: str | None = None
    for start in range(0, file.ids.size, _CHUNK):
        chunk = file.ids[start : start + _CHUNK]
        checksum.update(chunk.data)
        if wrong is None and int(chunk.max()) >= file.vocab_size:
            at = int(np.argmax(chunk >= file.vocab_size))
            offset = _HEADER.size + (start + at) * file.ids.itemsize
            wrong = (
                f"id {chunk[at]} at byte {offset} is outside the vocabulary of {file.vocab_size}"
            )
    if checksum.hexdigest() != file.sha256:
        raise DamagedFileError(
            f"{file.path}: damaged: the ids don't match the checksum in the header"
        )
    if wrong is not None:
        raise DamagedFileError(f"{file.path}: {wrong}")
