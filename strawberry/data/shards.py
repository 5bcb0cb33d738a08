"""Token files of other projects: `.bin` of nanoGPT, llm.c and modded-nanogpt, and `.npy` arrays.

Three formats, distinguished by their content:

- llm.c and modded-nanogpt: a header of 256 int32 (magic, version, number of ids), then the ids;
- `.npy`: a one-dimensional array of integers, as in build-nanogpt;
- all others: ids only, uint16 unless the recipe says otherwise, as in nanoGPT.

All are memory-mapped. Nothing is unpickled: nanoGPT's `meta.pkl` is not opened.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import EVERY, TEST, Progress, Split, silent
from strawberry.errors import StrawberryError
from strawberry.files.storage import FileFingerprints

SUFFIXES: Final = (".bin", ".npy")
_HEADER: Final = 256  # int32 numbers
_HEADERS: Final = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
"""Magic number and version of llm.c's headers, and the type of the following ids."""
_MAGICS: Final = frozenset(magic for magic, _ in _HEADERS)
_CHUNK: Final = 1 << 23  # ids that are looked at at a time
_VALIDATION: Final = frozenset({"val", "valid", "validation"})
_TEST: Final = frozenset({"test"})


@dataclass(frozen=True, slots=True)
class IdFile:
    """A file of ids.

    Attributes:
        path: its path.
        ids: all of them, memory-mapped.
        largest: the largest id; -1 without ids.
        sha256: hexadecimal digest of the ids' bytes.
    """

    path: Path
    ids: npt.NDArray[Any]
    largest: int
    sha256: str


def split_of(path: Path) -> Split:
    """Split names in file names: `val.bin`, `fineweb_val_000000.bin`, `x-valid.npy`, `test.bin`."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    if not _VALIDATION.isdisjoint(words):
        return "val"
    return "train" if _TEST.isdisjoint(words) else TEST


def divide(files: Sequence[Path]) -> dict[Split, list[Path]]:
    """The files of each split, by their names; validation and test may have none."""
    return {split: [path for path in files if split_of(path) == split] for split in EVERY}


def open_shards(
    files: Sequence[Path], dtype: str, identities: FileFingerprints, progress: Progress = silent
) -> list[IdFile]:
    """Map files of ids; each is read once, for its largest id and its digest.

    Args:
        files: the files to open.
        dtype: type of the ids in files without a header: `uint16` or `uint32`.
        identities: caches results of files that have been read.
        progress: progress callback.

    Raises:
        StrawberryError: a file can't be read, is truncated, or has no ids.
    """
    mapped = [(path, _map(path, dtype)) for path in files]
    opened, done, total = [], 0, sum(ids.nbytes for _, ids in mapped)
    for path, ids in mapped:
        note = f"shard, {ids.dtype.str}"
        known = identities.recall([path], note)
        if known is None:
            progress("checking ids", done, total)
            known = _scan(path, ids)
            identities.note([path], note, known)
        done += ids.nbytes
        opened.append(IdFile(path, ids, int(known["largest"]), str(known["sha256"])))
    return opened


def _map(path: Path, dtype: str) -> npt.NDArray[Any]:
    """The ids of a file, in any of the formats."""
    try:
        with path.open("rb") as file:
            start = file.read(4 * _HEADER)
        size = path.stat().st_size
        if start.startswith(b"\x93NUMPY"):
            return _map_array(path)
        _refuse(path, start)
        offset, kind, count = _layout(path, start, size, dtype)
        if not count:
            return np.empty(0, kind)
        return np.asarray(np.memmap(path, kind, mode="r", offset=offset, shape=(count,)))
    except OSError as error:
        raise StrawberryError(f"{path}: {error.strerror or error}") from error


def _layout(path: Path, start: bytes, size: int, dtype: str) -> tuple[int, np.dtype[Any], int]:
    """The offset, type and number of the ids of a `.bin` file."""
    numbers = np.frombuffer(start[: len(start) // 4 * 4], "<i4")
    if numbers.size == _HEADER and int(numbers[0]) in _MAGICS:
        magic, version, count = (int(number) for number in numbers[:3])
        if (magic, version) not in _HEADERS:
            raise StrawberryError(f"{path}: unknown version {version} of llm.c's format")
        kind = np.dtype(_HEADERS[magic, version])
        expected = 4 * _HEADER + count * kind.itemsize
        if count < 0 or size != expected:
            raise StrawberryError(
                f"{path}: {size} bytes long, but its header announces {count} ids, or "
                f"{expected} bytes; the file is truncated or still being written"
            )
        return 4 * _HEADER, kind, count
    kind = np.dtype(dtype).newbyteorder("<")
    if size % kind.itemsize:
        raise StrawberryError(f"{path}: {size} bytes are not a whole number of {dtype} ids")
    return 0, kind, size // kind.itemsize


def _map_array(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise StrawberryError(f"{path}: not a complete .npy array of numbers: {error}") from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        shape = " x ".join(map(str, array.shape))
        raise StrawberryError(
            f"{path}: expected a one-dimensional array of integers, got {shape} {array.dtype}"
        )
    return np.asarray(array)


def _refuse(path: Path, start: bytes) -> None:
    """Raises StrawberryError if a `.bin` file is of another known format."""
    from strawberry.data.tokenfile import MAGIC

    if start.startswith(MAGIC):
        raise StrawberryError(f"{path}: a token file of Strawberry; use data {{use: tokens}}")
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        end = file.read(1)
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if start.startswith(b"PK\x03\x04") or (pickled and end == b"."):
        raise StrawberryError(
            f"{path}: a pickle or an archive, which is never opened; expected ids"
        )
    if path.with_suffix(".idx").exists():
        raise StrawberryError(
            f"{path}: Megatron's format (with {path.stem}.idx), which is not supported"
        )


def _scan(path: Path, ids: npt.NDArray[Any]) -> dict[str, Any]:
    """Largest id and digest; raises StrawberryError for a negative id."""
    checksum, largest = sha256(), -1
    for start in range(0, ids.size, _CHUNK):
        chunk = np.ascontiguousarray(ids[start : start + _CHUNK])
        checksum.update(chunk.data)
        largest = max(largest, int(chunk.max()))
        if chunk.dtype.kind == "i" and int(chunk.min()) < 0:
            at = start + int(np.argmin(chunk))
            raise StrawberryError(f"{path}: id {ids[at]} at position {at} is negative")
    return {"largest": largest, "sha256": checksum.hexdigest()}
