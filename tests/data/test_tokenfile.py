"""Token files: what is written is read, and every damage is noticed before a batch is made."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest

from strawberry.data import tokenfile
from strawberry.data.tokenfile import TokenWriter, open_tokens
from strawberry.errors import StrawberryError
from strawberry.files.storage import DamagedFileError, FileFingerprints

HEADER = 128


def written(path: Path, ids: list[int], vocab_size: int = 500, split: str = "train") -> Path:
    """A token file with these ids, written in two pieces."""
    with TokenWriter(path, vocab_size, split) as writer:
        writer.append(np.array(ids[:3], dtype=np.uint32), 7)
        writer.append(np.array(ids[3:], dtype=np.uint32), 5)
    return path


@pytest.mark.parametrize(("vocab_size", "width"), [(500, 2), (65536, 2), (65537, 4), (200_000, 4)])
def test_ids_come_back_in_the_narrowest_type(
    tmp_path: Path, cache: Path, vocab_size: int, width: int
) -> None:
    """Two bytes an id up to 65,536 of them, then four; the header keeps what it was told."""
    ids = [0, 5, vocab_size - 1, 7]
    file = open_tokens(written(tmp_path / "a.tok", ids, vocab_size), FileFingerprints(cache))
    assert file.ids.tolist() == ids
    assert file.ids.itemsize == width
    assert (file.vocab_size, file.n_bytes, file.split) == (vocab_size, 12, "train")
    assert file.sha256 == hashlib.sha256(file.ids.tobytes()).hexdigest()


def test_a_file_without_ids_opens(tmp_path: Path, cache: Path) -> None:
    """No ids are no error here; whoever needs windows says so."""
    assert open_tokens(written(tmp_path / "a.tok", []), FileFingerprints(cache)).ids.size == 0


@pytest.mark.faults(29)
def test_every_truncation_and_extension_is_noticed(tmp_path: Path, cache: Path) -> None:
    """Cut anywhere, or longer by a byte, a file is refused by name."""
    path = written(tmp_path / "a.tok", list(range(100)))
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 16), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(
            DamagedFileError, match=r"a\.tok: (truncated|not a token file|\d+ bytes)"
        ):
            open_tokens(path, FileFingerprints(cache))
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedFileError, match="329 bytes long, expected 328"):
        open_tokens(path, FileFingerprints(cache))


def flips_noticed(path: Path, cache: Path) -> tuple[int, int]:
    """Flip a bit of every byte in turn: how many files were refused, and of how many."""
    whole = path.read_bytes()
    refused = 0
    for offset in range(len(whole)):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << offset % 8
        path.write_bytes(flipped)
        try:
            open_tokens(path, FileFingerprints(cache))
        except StrawberryError:
            refused += 1
    path.write_bytes(whole)
    return refused, len(whole)


@pytest.mark.faults(29)
def test_every_flipped_bit_is_noticed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of any byte changed is one file refused; without the checks, most pass."""
    path = written(tmp_path / "a.tok", list(range(200)))
    refused, tried = flips_noticed(path, cache)
    assert refused == tried
    monkeypatch.setattr(tokenfile, "_verify", lambda file: None)
    assert flips_noticed(path, cache)[0] <= HEADER  # the negative control


@pytest.mark.faults(29)
def test_an_id_outside_of_the_vocabulary_has_an_offset(tmp_path: Path, cache: Path) -> None:
    """A file that is well-formed, but holds an impossible id, names it and its byte."""
    path = written(tmp_path / "a.tok", [1, 2, 3, 4])
    raw = bytearray(path.read_bytes())
    raw[HEADER + 4 : HEADER + 6] = (500).to_bytes(2, "little")
    raw[48:80] = hashlib.sha256(raw[HEADER:]).digest()
    raw[HEADER - 4 : HEADER] = zlib.crc32(raw[: HEADER - 4]).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(
        DamagedFileError, match="id 500 at byte 132 is outside the vocabulary of 500"
    ):
        open_tokens(path, FileFingerprints(cache))


def test_another_format_is_named(tmp_path: Path, cache: Path) -> None:
    """A file of a later version is refused as such, not as damaged."""
    path = written(tmp_path / "a.tok", [1, 2, 3, 4])
    raw = bytearray(path.read_bytes())
    raw[8] = 9
    raw[HEADER - 4 : HEADER] = zlib.crc32(raw[: HEADER - 4]).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(StrawberryError, match="format 9; this Strawberry reads format 1"):
        open_tokens(path, FileFingerprints(cache))


def test_a_writer_refuses_ids_that_its_vocabulary_has_not(tmp_path: Path) -> None:
    """A tokenizer that breaks its word is caught as it writes, and the file stays invalid."""
    with pytest.raises(StrawberryError, match="outside its own vocabulary of 5"):
        written(tmp_path / "a.tok", [1, 2, 5], vocab_size=5)
    with pytest.raises(DamagedFileError):
        open_tokens(tmp_path / "a.tok", FileFingerprints(tmp_path))


def test_ids_are_hashed_once_for_each_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was verified and has not changed since is not read through again."""
    calls: list[Path] = []
    path = written(tmp_path / "a.tok", [1, 2, 3, 4])
    monkeypatch.setattr(tokenfile, "_verify", lambda file: calls.append(file.path))
    monkeypatch.setattr("strawberry.files.storage._SETTLED_NS", -(10**18))
    for _ in range(3):
        open_tokens(path, FileFingerprints(cache))
    assert calls == [path]
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw)
    open_tokens(path, FileFingerprints(cache))
    assert calls == [path, path]
