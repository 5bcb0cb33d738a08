"""The `shards` source: ids that nanoGPT, llm.c and others wrote."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest

from strawberry.components.data.shards import ShardFiles
from strawberry.contracts.data import Dataset, DataSite, Split
from strawberry.data.bpe import byte_tokenizer
from strawberry.data.stream import IdStream
from strawberry.errors import FieldError

IDS = np.random.default_rng(0).integers(0, 256, 1000)


@pytest.fixture
def site(tmp_path: Path) -> DataSite:
    """A place without a tokenizer for ids, with paths from the test's folder."""

    def none(_: object) -> NoReturn:
        raise AssertionError("ids need no tokenizer")

    return DataSite(258, 8, 0, tmp_path / "cache", (tmp_path,), none)


def llm_c(path: Path, ids: npt.NDArray[np.int64], magic: int, version: int, dtype: str) -> None:
    """Write ids as llm.c does."""
    header = np.zeros(256, np.int32)
    header[:3] = magic, version, len(ids)
    path.write_bytes(header.tobytes() + ids.astype(dtype).tobytes())


def everything(dataset: Dataset, split: Split) -> list[int]:
    """All ids of a split."""
    n_tokens = dataset.n_tokens(split)
    assert n_tokens is not None
    x, y = dataset.rows(split, 0, 1, block_size=n_tokens - 1, seed=0)
    return [*x[0].tolist(), int(y[0, -1])]


def test_nanogpts_folder(tmp_path: Path, site: DataSite) -> None:
    """`train.bin` and `val.bin` are raw uint16; the pickle beside them is not opened."""
    IDS[:900].astype(np.uint16).tofile(tmp_path / "train.bin")
    IDS[900:].astype(np.uint16).tofile(tmp_path / "val.bin")
    (tmp_path / "meta.pkl").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    dataset = ShardFiles(site, path=".").open()
    assert everything(dataset, "train") == IDS[:900].tolist()
    assert everything(dataset, "val") == IDS[900:].tolist()
    assert (dataset.tokenizer, dataset.vocab_size, dataset.eot) == (None, 258, None)
    assert dataset.n_bytes("val", IDS) is None


@pytest.mark.parametrize(
    ("magic", "version", "dtype"), [(20240520, 1, "<u2"), (20240801, 7, "<u4")]
)
def test_shards_of_llm_c(
    tmp_path: Path, site: DataSite, magic: int, version: int, dtype: str
) -> None:
    """Shards with a header are one stream in the order of their names, over their seams."""
    parts = {
        "b_train_000001": IDS[:300],
        "b_train_000002": IDS[300:310],
        "b_train_000010": IDS[310:],
    }
    for name, ids in {**parts, "b_val_000000": IDS[:50]}.items():
        llm_c(tmp_path / f"{name}.bin", ids, magic, version, dtype)
    dataset = ShardFiles(site, path="b_*.bin", eot=7).open()
    assert everything(dataset, "train") == IDS.tolist()
    assert everything(dataset, "val") == IDS[:50].tolist()
    assert dataset.eot == 7


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, ">u2"])
def test_arrays(tmp_path: Path, site: DataSite, dtype: npt.DTypeLike) -> None:
    """`.npy` of any integers; `val` names the other split, which a folder's files leave out."""
    np.save(tmp_path / "a.npy", IDS[:600].astype(dtype))
    np.save(tmp_path / "z.npy", IDS[600:].astype(dtype))
    dataset = ShardFiles(site, path=str(tmp_path), val="z.npy").open()
    assert everything(dataset, "train") == IDS[:600].tolist()
    assert everything(dataset, "val") == IDS[600:].tolist()


def test_the_end_is_validation_where_no_file_is(tmp_path: Path, site: DataSite) -> None:
    """One stream is divided, whatever files it is in, and `dtype` says how wide raw ids are."""
    IDS[:500].astype(np.uint32).tofile(tmp_path / "a.bin")
    IDS[500:].astype(np.uint32).tofile(tmp_path / "b.bin")
    dataset = ShardFiles(site, path=".", dtype="uint32", data_division=0.4).open()
    assert everything(dataset, "train") == IDS[:400].tolist()
    assert everything(dataset, "val") == IDS[400:].tolist()


def test_bytes_of_text_are_those_of_the_tokenizer(tmp_path: Path, site: DataSite) -> None:
    """A tokenizer that is named, or beside the files, counts bytes; ends of documents have none."""
    IDS.astype(np.uint16).tofile(tmp_path / "train.bin")
    np.array([65, 256, 66, 256], np.uint16).tofile(tmp_path / "val.bin")
    byte_tokenizer(["<|eot|>", "<|sep|>"]).save(tmp_path / "bytes.json")
    named = ShardFiles(site, path=".", tokenizer="bytes.json").open()
    ids = np.array([65, 256, 66, 256, -1])
    assert (named.n_bytes("val", ids), named.eot) == (2, 256)
    (tmp_path / "bytes.json").rename(tmp_path / "tokenizer.json")
    assert ShardFiles(site, path=".").open().n_bytes("val", ids) == 2
    assert ShardFiles(site, path=".", eot=65).open().n_bytes("val", ids) == 1
    with pytest.raises(FieldError, match="no such file") as told:
        ShardFiles(site, path=".", tokenizer="bytes.json").open()
    assert told.value.field == "tokenizer"


def test_data_decides_the_fingerprint(tmp_path: Path, site: DataSite) -> None:
    """Other ids, another type of them, or another division is another data set."""
    found = set()
    for dtype, division, last in (
        ("uint16", 0.5, 3), ("uint32", 0.5, 3), ("uint16", 0.6, 3), ("uint16", 0.5, 4),
    ):  # fmt: skip
        np.array([0, 1, 2, last] * 30, np.uint16).tofile(tmp_path / "a.bin")
        large = replace(site, vocab_size=1 << 20)
        source = ShardFiles(large, path="a.bin", dtype=dtype, data_division=division)  # type: ignore[arg-type]
        found.add(source.open().fingerprint)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "3 bytes are not a whole number of uint16 ids"),
        (np.array([1, 300], np.uint16).tobytes(), r"contains id 300, but .* has 258 ids"),
        (pickle.dumps(list(range(99))), "never opened"),
        (b"PK\x03\x04 and so on", "never opened"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "not a complete .npy array"),
        (np.array([20240520, 1, 999] + [0] * 253, np.int32).tobytes(), "announces 999 ids"),
        (np.array([20240520, 9, 0] + [0] * 253, np.int32).tobytes(), "version 9"),
        (b"STRWTOK\nand so on", "use: tokens"),
    ],
)
def test_what_is_no_shard(tmp_path: Path, site: DataSite, content: bytes, message: str) -> None:
    """Damaged and foreign files are refused by name, and nothing is unpickled."""
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(FieldError, match=message):
        ShardFiles(site, path="a.bin").open()


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.int32), np.ones(9), np.array([1, -2])])
def test_arrays_that_hold_no_ids(
    tmp_path: Path, site: DataSite, array: npt.NDArray[np.int64]
) -> None:
    """More dimensions, fractions and negative numbers are refused."""
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FieldError, match=r"one-dimensional array of integers|is negative"):
        ShardFiles(site, path="a.npy").open()


def test_files_that_are_missing(tmp_path: Path, site: DataSite) -> None:
    """An empty folder, validation alone, and Megatron's format are refused with the reason."""
    with pytest.raises(FieldError, match=r"\.bin, \.npy"):
        ShardFiles(site, path=".").open()
    IDS.astype(np.uint16).tofile(tmp_path / "val.bin")
    with pytest.raises(FieldError, match="no file is left for training"):
        ShardFiles(site, path=".").open()
    IDS.astype(np.uint16).tofile(tmp_path / "text_document.bin")
    index = tmp_path / "text_document.idx"
    index.write_bytes(b"MMIDIDX")
    with pytest.raises(FieldError, match="Megatron"):
        ShardFiles(site, path=".").open()
    index.unlink()
    with pytest.raises(FieldError, match="258 ids"):
        ShardFiles(site, path="text*.bin", val="val.bin", eot=50256).open()


def test_windows_of_a_stream() -> None:
    """Windows and divisions at every place are those of one array, empty parts or not."""
    whole = np.arange(20)
    stream = IdStream([whole[:3], whole[3:3], whole[3:4], whole[4:13], whole[13:]])
    for length in (1, 5, 20):
        starts = np.arange(20 - length + 1)
        expected = np.array([whole[start : start + length] for start in starts])
        np.testing.assert_array_equal(stream.windows(starts, length), expected)
    for at in range(21):
        first, second = stream.split(at)
        assert (first.size, second.size) == (at, 20 - at)
        assert np.concatenate([*first.parts, *second.parts]).tolist() == whole.tolist()
