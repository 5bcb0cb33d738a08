"""Epochs: every window of the training text once, in another order each time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import Dataset, Ids, Split
from strawberry.data.packed import too_short
from strawberry.data.stream import IdStream
from strawberry.errors import StrawberryError
from strawberry.files.storage import digest

_ROUNDS: Final = 6
_Words = npt.NDArray[np.uint64]


class EpochsDataset(Dataset):
    """Another data set, whose training rows are windows without replacement.

    Windows of T inputs begin at 0, T, 2T, ...: in an epoch, each id but the first is predicted
    once, apart from an incomplete window at the end. Row n belongs to epoch n // W for W windows,
    so a row is a function of its number and the seed. Validation and test are those of the other
    data set.

    Args:
        of: the data set; its ids must be in arrays.
    """

    def __init__(self, of: Dataset) -> None:
        self.of = of
        self.splits = of.splits
        self.tokenizer = of.tokenizer
        self.vocab_size = of.vocab_size
        self.exact = of.exact
        self.predicts_all = of.predicts_all
        self.fingerprint = digest("epochs", of.fingerprint)
        arrays = of.arrays("train")
        if arrays is None:
            raise StrawberryError("this data is generated, so it has no windows to go through once")
        self._ids = IdStream(arrays)
        self.notes = of.notes

    @property
    def eot(self) -> int | None:
        """The id that ends a document."""
        return self.of.eot

    def n_tokens(self, split: Split) -> int | None:
        """Number of tokens in a split."""
        return self.of.n_tokens(split)

    def windows(self, block_size: int) -> int:
        """Training windows in an epoch."""
        return (self._ids.size - 1) // block_size

    def rows(
        self, split: Split, first: int, count: int, *, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        """Inputs and targets, both (count, T) int64; see `Dataset.rows`."""
        if split != "train":
            return self.of.rows(split, first, count, block_size=block_size, seed=seed)
        size = self.windows(block_size)
        if size < 1:
            raise StrawberryError(too_short(split, self._ids.size, block_size))
        numbers = np.arange(first, first + count, dtype=np.int64)
        chosen = np.empty(count, np.int64)
        for turn in np.unique(numbers // size).tolist():
            here = numbers // size == turn
            chosen[here] = shuffled(numbers[here] % size, size, seed, turn)
        rows = self._ids.windows(chosen * block_size, block_size + 1).astype(np.int64)
        return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])

    def sources(self, split: Split, first: int, count: int) -> tuple[Sequence[str], Ids] | None:
        """The sources of the other data set's rows; of training rows None."""
        return None if split == "train" else self.of.sources(split, first, count)

    def rows_in(self, split: Split, block_size: int) -> int | None:
        """Rows of `val` or `test` before they repeat."""
        return self.of.rows_in(split, block_size)

    def arrays(self, split: Split) -> Sequence[npt.NDArray[Any]] | None:
        """All ids of a split."""
        return self.of.arrays(split)

    def n_bytes(self, split: Split, targets: Ids) -> float | None:
        """UTF-8 bytes of the text of these targets."""
        return self.of.n_bytes(split, targets)

    def texts(self, split: Split) -> Iterator[str] | None:
        """The documents of the ids, if they are known."""
        return self.of.texts(split)

    def groups(self, split: Split, first: int, count: int, *, block_size: int) -> Ids | None:
        """Document numbers of rows."""
        return self.of.groups(split, first, count, block_size=block_size)


def shuffled(numbers: Ids, size: int, seed: int, turn: int) -> Ids:
    """The places of `numbers` (all below `size`) in a random order of `size`, for a seed and turn.

    A Feistel network permutes the numbers of an even number of bits; what it sends to `size` or
    beyond is sent on until it falls below (Black and Rogaway 2002, "Ciphers with arbitrary finite
    domains"). Nothing as large as `size` is ever made.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = _keys(seed, turn)
    places = _permuted(numbers.astype(np.uint64), half, keys)
    while (beyond := places >= size).any():
        places[beyond] = _permuted(places[beyond], half, keys)
    return places.astype(np.int64)


def _permuted(values: _Words, half: int, keys: _Words) -> _Words:
    """A permutation of the numbers of 2 * `half` bits."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << bits) | right


def _mixed(words: _Words) -> _Words:
    """The finaliser of splitmix64 (Steele et al. 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@functools.lru_cache(maxsize=64)
def _keys(seed: int, turn: int) -> _Words:
    """The rounds' keys, of 64 bits."""
    words = [seed & ((1 << 64) - 1), turn & ((1 << 64) - 1)]
    random = np.random.Philox(key=np.array(words, dtype=np.uint64))
    return np.asarray(random.random_raw(_ROUNDS))
