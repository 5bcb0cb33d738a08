"""Prepared folders: token files of all splits, the tokenizer, and `meta.json`.

A folder is self-contained: a `tokens` source needs nothing else. `meta.json` has the checksum of
every other file and its own, so damaged or swapped files are detected.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import (
    EVERY,
    TEST,
    Corpus,
    Dataset,
    Ids,
    Progress,
    Split,
    silent,
)
from strawberry.contracts.tokenizer import Tokenizer, checked_ids
from strawberry.data.stream import IdStream
from strawberry.data.tokenfile import SUFFIX, TokenFile, TokenWriter, open_tokens
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.storage import DamagedFileError, FileFingerprints, digest, file_digest

META, TOKENIZER = "meta.json", "tokenizer.json"
FORMAT = 1
_BATCH = 1 << 22  # characters that are encoded at a time
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class PackedMeta:
    """The contents of `meta.json`.

    Attributes:
        format: version of the folder's format.
        corpus: fingerprint of the corpus.
        tokenizer: fingerprint of the tokenizer.
        vocab_size: upper bound of the ids, exclusive.
        n_documents: number of documents.
        n_tokens: number of tokens of each split.
        n_bytes: UTF-8 bytes of each split.
        sha256: checksum of each token file's ids, and of the tokenizer's file.
    """

    format: int
    corpus: str
    tokenizer: str
    vocab_size: int
    n_documents: int
    n_tokens: dict[str, int]
    n_bytes: dict[str, int]
    sha256: dict[str, str]


class PackedDataset(Dataset):
    """Windows of memory-mapped ids.

    Validation windows do not overlap. Any first few of them are spread evenly over the split
    (multiples of the golden ratio), so the first N batches are a fair, fixed sample. After the last
    window, they start again.

    Attributes:
        corpus: the text of the ids, if known.
    """

    def __init__(
        self,
        ids: dict[Split, IdStream],
        n_bytes: dict[Split, int] | None,
        *,
        vocab_size: int,
        fingerprint: str,
        tokenizer: Tokenizer | None,
    ) -> None:
        self._ids = ids
        self.splits = tuple(split for split in EVERY if split in ids)
        self._n_bytes = n_bytes
        self._ends: dict[Split, Ids] = {}
        self.vocab_size = vocab_size
        self.fingerprint = fingerprint
        self.tokenizer = tokenizer
        self.corpus: Corpus | None = None

    def n_tokens(self, split: Split) -> int:
        """Number of tokens in a split, ends of documents included."""
        return self._ids[split].size

    def rows(
        self, split: Split, first: int, count: int, *, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        """Inputs and targets, both (count, T) int64 and contiguous; see `Dataset.rows`."""
        ids = self._ids[split]
        if ids.size <= block_size:
            raise StrawberryError(too_short(split, ids.size, block_size))
        if split == "train":
            starts = (uniform(seed, first, count) * (ids.size - block_size)).astype(np.int64)
        else:
            starts = self._fixed(split, first, count, block_size)
        windows = ids.windows(starts, block_size + 1)
        pair = np.empty((2, count, block_size), np.int64)
        pair[0] = windows[:, :-1]
        pair[1] = windows[:, 1:]
        return pair[0], pair[1]

    def _fixed(self, split: Split, first: int, count: int, block_size: int) -> Ids:
        """Start positions of the rows of a split with fixed rows."""
        n_windows = self.rows_in(split, block_size)
        numbers = np.arange(first, first + count, dtype=np.int64)
        return numbers % n_windows * golden_stride(n_windows) % n_windows * block_size

    def groups(self, split: Split, first: int, count: int, *, block_size: int) -> Ids | None:
        """Document numbers: document ends before each row; see `Dataset.groups`."""
        if self.eot is None or split == "train":
            return None
        if split not in self._ends:
            parts = self._ids[split].parts
            begins = np.cumsum([0, *(part.size for part in parts)])
            ends = [
                at + np.flatnonzero(p == self.eot) for at, p in zip(begins, parts, strict=False)
            ]
            self._ends[split] = np.concatenate([np.zeros(0, np.int64), *ends])
        return np.searchsorted(self._ends[split], self._fixed(split, first, count, block_size))

    def arrays(self, split: Split) -> Sequence[npt.NDArray[Any]]:
        """The memory-mapped ids of a split."""
        return self._ids[split].parts

    def texts(self, split: Split) -> Iterator[str] | None:
        """The documents of the corpus, if it is known."""
        return None if self.corpus is None else self.corpus.documents(split)

    def rows_in(self, split: Split, block_size: int) -> int:
        """Number of whole windows of a split."""
        return (self._ids[split].size - 1) // block_size

    def n_bytes(self, split: Split, targets: Ids) -> float | None:
        """UTF-8 bytes of these ids by the tokenizer; without one, from the split's mean."""
        counted = targets[targets >= 0]
        if self.tokenizer is not None:
            ends = counted == self.eot
            return float(self.tokenizer.byte_lengths[counted[~ends]].sum())
        if self._n_bytes is None:
            return None
        return counted.size * self._n_bytes[split] / max(1, self._ids[split].size)


def uniform(seed: int, first: int, count: int) -> npt.NDArray[np.float64]:
    """Numbers `first` to `first + count - 1` of a seed's sequence, each in [0, 1)."""
    # Philox counts in blocks of four words; a number takes the first word of its own block.
    key, counter = [seed & _WORD, 0], [first & _WORD, 0, 0, 0]
    random = np.random.Philox(
        key=np.array(key, dtype=np.uint64), counter=np.array(counter, dtype=np.uint64)
    )
    words = random.random_raw(4 * count)[::4]
    return np.asarray((words >> np.uint64(11)) * 2.0**-53)


def too_short(split: str, n_tokens: int, block_size: int) -> str:
    """The error for a split without any window."""
    return (
        f"the {split} split has {n_tokens} tokens, but block_size {block_size} needs at "
        f"least {block_size + 1}; add text, change data_division, or lower "
        "model.block_size"
    )


@functools.lru_cache
def golden_stride(n: int) -> int:
    """The step nearest to n over the golden ratio that visits all of 0..n-1 before it repeats."""
    middle = max(1, round(n * (math.sqrt(5) - 1) / 2))
    for distance in range(n):
        for stride in (middle + distance, middle - distance):
            if stride > 0 and math.gcd(stride, n) == 1:
                return stride
    return 1


def pack(
    corpus: Corpus,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    special: bool = False,
    progress: Progress = silent,
) -> PackedMeta:
    """Encode a corpus into an existing, empty folder; `eot` follows each document.

    Args:
        corpus: the corpus to encode.
        tokenizer: the tokenizer.
        folder: the folder to write to.
        special: encode texts of special tokens within documents as their ids.
        progress: progress callback.

    Raises:
        PluginError: the tokenizer returned ids outside its vocabulary.
        StrawberryError: the corpus changed.
    """
    n_tokens: dict[str, int] = {}
    n_bytes: dict[str, int] = {}
    checksums: dict[str, str] = {}
    total = sum(corpus.n_bytes(split) for split in corpus.splits)
    done = 0
    end = np.array([tokenizer.eot], dtype=np.uint32)
    for split in corpus.splits:
        with TokenWriter(folder / f"{split}{SUFFIX}", tokenizer.vocab_size, split) as writer:
            for texts in _batches(corpus.documents(split)):
                progress("encoding", done, total)
                encoded = [
                    checked_ids(ids, tokenizer) for ids in tokenizer.encode_batch(texts, special)
                ]
                size = sum(len(text.encode()) for text in texts)
                writer.append(np.concatenate([a for ids in encoded for a in (ids, end)]), size)
                done += size
        n_tokens[split], n_bytes[split] = writer.count, writer.n_bytes
        checksums[f"{split}{SUFFIX}"] = writer.sha256
    progress("encoding", total, total)
    tokenizer.save(folder / TOKENIZER)
    checksums[TOKENIZER] = file_digest(folder / TOKENIZER)
    meta = PackedMeta(
        FORMAT,
        corpus.fingerprint,
        tokenizer.fingerprint,
        tokenizer.vocab_size,
        corpus.n_documents,
        n_tokens,
        n_bytes,
        checksums,
    )
    values = asdict(meta)
    content = json.dumps({**values, "digest": digest(values)}, indent=1)
    write_atomic(folder / META, content)
    return meta


def open_packed(
    folder: Path, identities: FileFingerprints, tokenizer: Tokenizer | None = None
) -> PackedDataset:
    """The verified data set of a prepared folder; its tokenizer is read unless given.

    Raises:
        DamagedFileError: a file is missing, truncated, altered, or a different one.
        StrawberryError: another version wrote the folder.
    """
    meta = read_meta(folder)
    files: dict[Split, TokenFile] = {}
    for split in (split for split in EVERY if split in meta.n_tokens):
        path = folder / f"{split}{SUFFIX}"
        file = open_tokens(path, identities)
        if (file.sha256, file.split) != (meta.sha256.get(path.name), split):
            raise DamagedFileError(f"{path}: not the file that {META} describes")
        files[split] = file
    path = folder / TOKENIZER
    try:
        checksum = file_digest(path)
    except OSError as error:
        raise DamagedFileError(f"{path}: {error.strerror or error}") from error
    if checksum != meta.sha256.get(TOKENIZER):
        raise DamagedFileError(f"{path}: not the file that {META} describes")
    if tokenizer is None:
        from strawberry.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(path)
    return PackedDataset(
        {split: IdStream([file.ids]) for split, file in files.items()},
        {split: file.n_bytes for split, file in files.items()},
        vocab_size=meta.vocab_size,
        fingerprint=_fingerprint([file.sha256 for file in files.values()], meta.vocab_size),
        tokenizer=tokenizer,
    )


def join_packed(parts: Sequence[PackedDataset]) -> PackedDataset:
    """Several data sets of one tokenizer as one; a split that one lacks is left out."""
    splits = [split for split in EVERY if all(split in part.splits for part in parts)]
    ids = {
        split: IdStream([array for part in parts for array in part.arrays(split)])
        for split in splits
    }
    fingerprints = [part.fingerprint for part in parts]
    return PackedDataset(
        ids,
        None,
        vocab_size=parts[0].vocab_size,
        fingerprint=fingerprints[0] if len(parts) == 1 else digest("parts", fingerprints),
        tokenizer=parts[0].tokenizer,
    )


def open_single(
    path: Path,
    identities: FileFingerprints,
    data_division: float,
    tokenizer: Tokenizer | None,
    test_division: float = 0.0,
) -> PackedDataset:
    """The data set of one token file, whose first `data_division` is for training.

    The end of that part becomes the test split, with a share of `test_division`.
    """
    file = open_tokens(path, identities)
    cut = round(file.ids.size * data_division)
    train, val = IdStream([file.ids]).split(cut)
    ids: dict[Split, IdStream] = {"train": train, "val": val}
    if test_division:
        size = round(file.ids.size * test_division)
        ids["train"], ids[TEST] = hold_back(
            train, size, None if tokenizer is None else tokenizer.eot
        )
    # The text of each part is not known; the whole file's ratio stands for both.
    ratio = file.n_bytes / max(1, file.ids.size)
    n_bytes: dict[Split, int] = {split: round(ratio * part.size) for split, part in ids.items()}
    return PackedDataset(
        ids,
        n_bytes if file.n_bytes else None,
        vocab_size=file.vocab_size,
        fingerprint=_fingerprint(
            [file.sha256, str(cut), *([str(ids["train"].size)] if test_division else [])],
            file.vocab_size,
        ),
        tokenizer=tokenizer,
    )


def hold_back(train: IdStream, size: int, eot: int | None) -> tuple[IdStream, IdStream]:
    """Training ids without their end, and about `size` ids of that end.

    With `eot` known, both end with a document, and no document is in both; an incomplete last
    document is in neither.
    """
    kept, test = train.split(max(0, train.size - size))
    if eot is None:
        return kept, test
    ends = np.concatenate([np.zeros(0, bool), *(part == eot for part in test.parts)])
    places = np.flatnonzero(ends) + 1
    if places.size < 2:  # hardly a document: it is simply cut
        return kept, test
    kept, _ = train.split(kept.size + int(places[0]))
    return kept, test.split(int(places[-1]))[0].split(int(places[0]))[1]


def read_meta(folder: Path) -> PackedMeta:
    """Read `meta.json` of a prepared folder; raises as `open_packed` does."""
    path = folder / META
    try:
        values = json.loads(path.read_bytes())
        stored = values.pop("digest")
        version = values["format"]
    except OSError as error:
        raise DamagedFileError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(
            f"{path}: damaged, or not written by `strawberry data prepare`"
        ) from (error)
    if version != FORMAT:
        raise StrawberryError(f"{path}: format {version}; this Strawberry reads format {FORMAT}")
    if digest(values) != stored:
        raise DamagedFileError(f"{path}: damaged: wrong checksum")
    return PackedMeta(**values)


def _fingerprint(checksums: Sequence[str], vocab_size: int) -> str:
    return digest(list(checksums), vocab_size)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Texts in groups of a few million characters."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _BATCH:
            yield group
            group, size = [], 0
    if group:
        yield group
