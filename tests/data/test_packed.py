"""Prepared folders: batches are what they should be, and damage is named."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from strawberry.contracts.data import SPLITS, Corpus, Ids, Split
from strawberry.data.bpe import byte_tokenizer
from strawberry.data.frequencies import frequency_loss
from strawberry.data.packed import (
    PackedDataset,
    golden_stride,
    open_packed,
    open_single,
    pack,
    read_meta,
)
from strawberry.data.stream import IdStream
from strawberry.errors import StrawberryError
from strawberry.files.storage import DamagedFileError, FileFingerprints, digest

BATCH = 4


def batch(dataset: PackedDataset, split: Split, step: int, *, seed: int) -> tuple[Ids, Ids]:
    """The rows of a step of four."""
    return dataset.rows(split, step * BATCH, BATCH, block_size=8, seed=seed)


class Held(Corpus):
    """A corpus in memory."""

    def __init__(self, train: list[str], val: list[str]) -> None:
        self._texts = {"train": train, "val": val}
        self.fingerprint = digest(train, val)
        self.n_documents = len(train) + len(val)

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of a split."""
        return iter(self._texts[split])

    def n_bytes(self, split: Split) -> int:
        """UTF-8 bytes in a split."""
        return len("".join(self._texts[split]).encode())


VALIDATION = ["validation\n" * 9, "more\n" * 9]
CORPUS = Held([f"training text {i} \u00e9\n" for i in range(40)], VALIDATION)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared folder of that corpus, in bytes."""
    made = tmp_path / "prepared"
    made.mkdir()
    pack(CORPUS, byte_tokenizer(["<|eot|>"]), made)
    return made


@pytest.fixture
def dataset(folder: Path, cache: Path) -> PackedDataset:
    """Its data set."""
    return open_packed(folder, FileFingerprints(cache))


def test_documents_are_packed_in_order_and_each_is_ended(dataset: PackedDataset) -> None:
    """The ids of a split are its documents one after the other, `<|eot|>` after each."""
    assert dataset.tokenizer is not None
    for split in SPLITS:
        text = dataset.tokenizer.decode(dataset._ids[split].parts[0].tolist())
        assert text == "".join(f"{document}<|eot|>" for document in CORPUS.documents(split))
        n_documents = len(list(CORPUS.documents(split)))
        assert dataset.n_tokens(split) == CORPUS.n_bytes(split) + n_documents
        assert dataset.n_bytes(split, dataset._ids[split].parts[0]) == CORPUS.n_bytes(split)
    assert dataset.vocab_size == 257


def test_training_windows_are_drawn_of_seed_and_step_alone(dataset: PackedDataset) -> None:
    """The same arguments give the same batch in any order; another step or seed gives another."""
    first = batch(dataset, "train", 3, seed=1)
    batch(dataset, "train", 9, seed=1)
    again = batch(dataset, "train", 3, seed=1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for number in range(BATCH):  # alone as among others
        alone, _ = dataset.rows("train", 3 * BATCH + number, 1, block_size=8, seed=1)
        np.testing.assert_array_equal(alone[0], first[0][number])
    assert not np.array_equal(first[0], batch(dataset, "train", 4, seed=1)[0])
    assert not np.array_equal(first[0], batch(dataset, "train", 3, seed=2)[0])
    assert batch(dataset, "train", 0, seed=-5)[0].shape == (4, 8)


def test_a_batch_holds_windows_and_what_follows_them(dataset: PackedDataset) -> None:
    """Inputs are stretches of the split, targets the same one token on; int64 and contiguous."""
    for split in SPLITS:
        (ids,) = dataset._ids[split].parts
        stretches = {ids[i : i + 9].tobytes() for i in range(ids.size - 8)}
        for step in range(20):
            x, y = batch(dataset, split, step, seed=0)
            assert x.shape == y.shape == (4, 8)
            assert x.dtype == y.dtype == np.int64
            assert x.flags.c_contiguous
            assert y.flags.c_contiguous
            np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
            for row, target in zip(x, y, strict=True):
                window = np.append(row, target[-1]).astype(ids.dtype)
                assert window.tobytes() in stretches


def test_every_training_token_can_be_drawn(dataset: PackedDataset) -> None:
    """The first and the last window of the split come up like any other."""
    (ids,) = dataset._ids["train"].parts
    few = IdStream([ids[:12]])
    small = PackedDataset(
        {"train": few, "val": few}, None, vocab_size=257, fingerprint="", tokenizer=None
    )
    starts = {
        bytes(row.astype(np.uint8))
        for step in range(50)
        for row in batch(small, "train", step, seed=0)[0]
    }
    assert starts == {bytes(ids[i : i + 8].astype(np.uint8)) for i in range(4)}
    assert small.n_bytes("train", ids[:12]) is None


def test_validation_is_the_same_windows_for_everyone(dataset: PackedDataset) -> None:
    """Neither seed nor batch size changes which windows come, and one pass has each once."""
    n_windows = (dataset.n_tokens("val") - 1) // 8
    assert dataset.rows_in("val", 8) == n_windows
    by_one = [dataset.rows("val", i, 1, block_size=8, seed=1)[0] for i in range(99)]
    by_three = [dataset.rows("val", 3 * i, 3, block_size=8, seed=2)[0] for i in range(33)]
    np.testing.assert_array_equal(np.concatenate(by_one), np.concatenate(by_three))
    ids = dataset._ids["val"].parts[0][: n_windows * 8].reshape(n_windows, 8)
    one_pass = np.concatenate(by_one[:n_windows])
    np.testing.assert_array_equal(
        np.sort(one_pass.view("V64"), axis=0), np.sort(ids.astype(np.int64).view("V64"), axis=0)
    )
    np.testing.assert_array_equal(by_one[0], by_one[n_windows])


@given(n=st.integers(1, 5000))
def test_the_golden_stride_visits_all_and_spreads(n: int) -> None:
    """It is coprime to n, and any first few of its multiples leave no large gap."""
    stride = golden_stride(n)
    assert math.gcd(stride, n) == 1
    if n >= 100:
        first = np.sort(np.arange(20) * stride % n)
        gaps = np.diff(np.append(first, first[0] + n))
        assert gaps.max() <= n / 20 * 4


def test_a_split_without_a_window_is_refused(dataset: PackedDataset) -> None:
    """A block longer than the split says how many tokens there are and how many it takes."""
    with pytest.raises(StrawberryError, match="val split has 146 tokens, but block_size 200 needs"):
        dataset.rows("val", 0, 1, block_size=200, seed=0)


def test_the_fingerprint_is_of_the_tokens(folder: Path, tmp_path: Path, cache: Path) -> None:
    """The same tokens in another place are the same data; another document makes other data."""
    fingerprint = open_packed(folder, FileFingerprints(cache)).fingerprint
    for name, corpus in {"same": CORPUS, "other": Held(["x" * 99], ["y" * 99])}.items():
        (tmp_path / name).mkdir()
        pack(corpus, byte_tokenizer(["<|eot|>"]), tmp_path / name)
        again = open_packed(tmp_path / name, FileFingerprints(cache)).fingerprint
        assert (again == fingerprint) == (name == "same")


@pytest.mark.faults(29)
def test_damage_to_any_file_is_named(folder: Path, cache: Path) -> None:
    """A file that is missing, altered or in another's place is refused, and which is said."""
    for name in ("train.tok", "val.tok", "tokenizer.json", "meta.json"):
        path = folder / name
        whole = path.read_bytes()
        for damage in (b"", whole[:-1], whole[:50] + b"\x07" + whole[51:], None):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            with pytest.raises(DamagedFileError, match=name.replace(".", r"\.")):
                open_packed(folder, FileFingerprints(cache))
        path.write_bytes(whole)
    open_packed(folder, FileFingerprints(cache))


@pytest.mark.faults(29)
def test_files_that_changed_places_are_noticed(folder: Path, cache: Path) -> None:
    """Each file by itself is whole; together they are not what was written."""
    train, val, spare = folder / "train.tok", folder / "val.tok", folder / "spare"
    train.rename(spare)
    val.rename(train)
    spare.rename(val)
    with pytest.raises(DamagedFileError, match=r"train\.tok: not the file that meta\.json"):
        open_packed(folder, FileFingerprints(cache))


def test_meta_of_another_format_or_of_another_hand_is_refused(folder: Path) -> None:
    """Numbers that were edited have another checksum; a later format is named as such."""
    path = folder / "meta.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "n_documents": 7}))
    with pytest.raises(DamagedFileError, match="wrong checksum"):
        read_meta(folder)
    path.write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(StrawberryError, match="format 2; this Strawberry reads format 1"):
        read_meta(folder)
    path.write_text("[]")
    with pytest.raises(DamagedFileError, match="not written by `strawberry data prepare`"):
        read_meta(folder)


def test_a_single_file_is_divided_by_its_tokens(folder: Path, cache: Path) -> None:
    """One token file serves too: its beginning trains, its end validates."""
    path = folder / "train.tok"
    whole = open_packed(folder, FileFingerprints(cache))
    single = open_single(path, FileFingerprints(cache), 0.75, None)
    assert single.n_tokens("train") == round(whole.n_tokens("train") * 0.75)
    assert single.n_tokens("train") + single.n_tokens("val") == whole.n_tokens("train")
    some = whole._ids["train"].parts[0][:50].astype(np.int64)
    assert single.n_bytes("val", some) == pytest.approx(whole.n_bytes("train", some), rel=0.05)
    other = open_single(path, FileFingerprints(cache), 0.5, None)
    assert other.fingerprint != single.fingerprint != whole.fingerprint


def test_documents_may_hold_special_tokens(tmp_path: Path, cache: Path) -> None:
    """With `special`, the text of a special token in a document is that token."""
    corpus = Held(["a<|sep|>b"], ["c"])
    pack(corpus, byte_tokenizer(["<|eot|>", "<|sep|>"]), tmp_path, special=True)
    (ids,) = open_packed(tmp_path, FileFingerprints(cache))._ids["train"].parts
    assert ids.tolist() == [97, 257, 98, 256]


def test_frequencies_alone_give_the_entropy() -> None:
    """Ids in shares of 1/2, 1/4 and 1/4 cost 1.5 bits each, in however many arrays."""
    ids: dict[Split, IdStream] = {
        "train": IdStream([np.array([0, 0, 5]), np.array([7])]),
        "val": IdStream([np.arange(4)]),
    }
    dataset = PackedDataset(ids, None, vocab_size=9, fingerprint="x", tokenizer=None)
    assert frequency_loss(dataset) == pytest.approx(1.5 * np.log(2))
