"""Mixtures: several data sets, in given shares."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import EVERY, Dataset, Ids, Split
from strawberry.errors import StrawberryError
from strawberry.files.storage import digest

BLOCK: Final = 4096
"""Rows in which the shares hold exactly; shares are multiples of 1 / BLOCK."""
_WORD: Final = (1 << 64) - 1


class MixedDataset(Dataset):
    """Rows of several data sets: of each BLOCK rows, every one has its share, in random order.

    Training rows of a data set are taken in turn, so one with epochs goes through them. Validation
    has the same shares, and ends before any of its rows would come twice. A row is a function of
    its number and the seed.

    Args:
        parts: the data sets.
        shares: their weights, above zero; None goes by their training tokens.
        names: a name for each, by which evaluations report its loss; None numbers them.

    Raises:
        StrawberryError: the data sets have different tokenizers, or a share is too small.
    """

    def __init__(
        self,
        parts: Sequence[Dataset],
        shares: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.parts = list(parts)
        self.names = list(names or (f"source_{number + 1}" for number in range(len(parts))))
        self.tokenizer = _common_tokenizer(parts)
        self.splits = tuple(s for s in EVERY if all(s in part.splits for part in parts))
        self.vocab_size = max(part.vocab_size for part in parts)
        self.exact = all(part.exact for part in parts)
        self.predicts_all = all(part.predicts_all for part in parts)
        self.counts = block_counts(self._weights() if shares is None else shares)
        self.notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
        if len({part.eot for part in parts}) > 1:
            raise StrawberryError("the data sets end documents with different ids")
        self.fingerprint = digest("mixture", [part.fingerprint for part in parts], self.counts)

    def _weights(self) -> list[float]:
        sizes = [part.n_tokens("train") for part in self.parts]
        if any(size is None for size in sizes):
            raise StrawberryError("give `weights`: one of these data sets is generated without end")
        return [float(size or 0) for size in sizes]

    @property
    def eot(self) -> int | None:
        """The id that ends a document, of all parts."""
        return self.parts[0].eot

    def n_tokens(self, split: Split) -> int | None:
        """Tokens of a split in all parts; None if one is generated without end."""
        sizes = [part.n_tokens(split) for part in self.parts]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def rows(
        self, split: Split, first: int, count: int, *, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        """Inputs and targets, both (count, T) int64; see `Dataset.rows`."""
        order = seed if split == "train" else 0
        pair = np.empty((2, count, block_size), np.int64)
        for number, taken in enumerate(self._taken(first, count, order)):
            if taken.places.size:
                # A seed for each part: two with the same text don't draw the same windows.
                pair[:, taken.places] = self.parts[number].rows(
                    split, taken.first, taken.places.size, block_size=block_size, seed=seed + number
                )
        return pair[0], pair[1]

    def _taken(self, first: int, count: int, order: int) -> list[_Taken]:
        """For each part: its first row among these, and the places of its rows."""
        block = first // BLOCK
        owners = self._owners(block * BLOCK, first + count - block * BLOCK, order)
        before, mine = np.split(owners, [first - block * BLOCK])
        return [
            _Taken(block * rows + int((before == part).sum()), np.flatnonzero(mine == part))
            for part, rows in enumerate(self.counts)
        ]

    def _owners(self, first: int, count: int, order: int) -> npt.NDArray[np.int16]:
        """The part of each of these rows, (count,)."""
        blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
        owners = np.concatenate([_order(self.counts, order, block) for block in blocks])
        return owners[first - blocks.start * BLOCK :][:count]

    def sources(self, split: Split, first: int, count: int) -> tuple[Sequence[str], Ids] | None:
        """The names of the parts, and the part of each row of `val` or `test`."""
        return self.names, self._owners(first, count, 0).astype(np.int64)

    def rows_in(self, split: Split, block_size: int) -> int | None:
        """Rows of `val` or `test` before one of any part comes twice."""
        sizes = [part.rows_in(split, block_size) for part in self.parts]
        ends = [_end(self.counts, n, size) for n, size in enumerate(sizes) if size is not None]
        return min(ends, default=None)

    def arrays(self, split: Split) -> Sequence[npt.NDArray[Any]] | None:
        """All ids of a split, one part after the other; None if some are generated."""
        arrays = [part.arrays(split) for part in self.parts]
        if any(array is None for array in arrays):
            return None
        return [array for of_part in arrays for array in of_part or ()]

    def n_bytes(self, split: Split, targets: Ids) -> float | None:
        """UTF-8 bytes of the text of these targets, by the common tokenizer."""
        return None if self.tokenizer is None else self.parts[0].n_bytes(split, targets)

    def texts(self, split: Split) -> Iterator[str] | None:
        """The documents of all parts, in the order of `arrays`."""
        texts = [part.texts(split) for part in self.parts]
        if any(text is None for text in texts):
            return None
        return itertools.chain.from_iterable(text for text in texts if text is not None)

    def groups(self, split: Split, first: int, count: int, *, block_size: int) -> Ids | None:
        """Numbers of documents: those of each part are apart from the others'."""
        numbers = np.empty(count, np.int64)
        for part, taken in enumerate(self._taken(first, count, 0)):
            size = taken.places.size
            own = self.parts[part].groups(split, taken.first, max(1, size), block_size=block_size)
            if own is None:
                return None
            numbers[taken.places] = own[:size] * len(self.parts) + part
        return numbers


class _Taken(NamedTuple):
    """A part's rows among those that are asked for: the number of the first, and their places."""

    first: int
    places: npt.NDArray[np.intp]


def block_counts(weights: Sequence[float]) -> tuple[int, ...]:
    """Rows of each part in BLOCK rows: the largest remainders are rounded up.

    Raises StrawberryError if a part would have none.
    """
    exact = np.array(weights, np.float64) / sum(weights) * BLOCK
    counts = np.floor(exact).astype(np.int64)
    left = BLOCK - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    if (counts < 1).any():
        part = int(np.argmin(counts))
        raise StrawberryError(
            f"data set {part + 1} of {len(weights)} has a share of "
            f"{weights[part] / sum(weights):.2g}; the smallest is 1/{BLOCK}"
        )
    return tuple(counts.tolist())


@functools.lru_cache(maxsize=4)
def _order(counts: tuple[int, ...], seed: int, block: int) -> npt.NDArray[np.int16]:
    """The part of each row of a block, (BLOCK,)."""
    owners = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    key = np.array([seed & _WORD, block & _WORD], dtype=np.uint64)
    order = np.random.Generator(np.random.Philox(key=key)).permutation(owners)
    order.flags.writeable = False
    return order


def _end(counts: tuple[int, ...], part: int, size: int) -> int:
    """The row of a mixture before which a part with `size` fixed rows has none twice."""
    block, rest = divmod(size, counts[part])
    owners = np.flatnonzero(_order(counts, 0, block) == part)
    return block * BLOCK + int(owners[rest])


def _common_tokenizer(parts: Sequence[Dataset]) -> Any:
    """The tokenizer of all; raises StrawberryError if they have different ones."""
    prints = [None if p.tokenizer is None else p.tokenizer.fingerprint for p in parts]
    for number, fingerprint in enumerate(prints):
        if fingerprint != prints[0]:
            raise StrawberryError(
                f"data set {number + 1} has another tokenizer than the first; prepare both with "
                "one tokenizer.json"
            )
    return parts[0].tokenizer
