"""Synthetic sequences from a task, generated on demand."""

from __future__ import annotations

import functools
from hashlib import sha256
from typing import Annotated, Any, Final

import numpy as np
from annotated_types import Ge

from strawberry.contracts.data import (
    SPLITS,
    TEST,
    Dataset,
    DataSite,
    DataSource,
    Ids,
    Split,
    Task,
    TaskSite,
)
from strawberry.errors import StrawberryError
from strawberry.files.storage import digest
from strawberry.plugin.signature import Kind
from strawberry.recipe.spec import ComponentSpec

_WORD: Final = (1 << 64) - 1
_NEW, _FIXED, _VAL, _ORDER, _TEST = range(5)
"""Streams of random numbers: new sequences, a fixed set, validation, an order, and a test."""
_PRINTED: Final = 4
"""Number of sequences of each split in the fingerprint."""


class Synthetic(DataSource):
    """Sequences of a task, each as long as the model's `block_size`, with exact answers.

    Evaluation reports `val_accuracy`, the share of right answers, and `val_solved`, the share of
    sequences with only right answers. No tokenizer is used.

    Args:
        task: generates the sequences.
        examples: number of training sequences, repeated in a new order each time; null draws new
            ones without end.
        val_examples: number of validation sequences.
        test_examples: number of sequences of the locked test split; 0 for none.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        task: Annotated[ComponentSpec, Kind("task")],
        examples: Annotated[int, Ge(1)] | None = None,
        val_examples: Annotated[int, Ge(1)] = 1280,
        test_examples: Annotated[int, Ge(0)] = 1280,
    ) -> None:
        super().__init__(site)
        self.task = task
        self.examples = examples
        self.val_examples = val_examples
        self.test_examples = test_examples

    def open(self) -> Dataset:
        """Open the data set; raises RecipeError if the task doesn't fit the model."""
        sizes: dict[Split, int | None] = {"train": self.examples, "val": self.val_examples}
        if self.test_examples:
            sizes[TEST] = self.test_examples
        task_site = TaskSite(self.site.vocab_size, self.site.block_size)
        task: Task = self.task.construct(task_site, contract=Task)
        with self.task.located():
            return SyntheticDataset(task, sizes, self.site, self.task.to_dict())

    def divided(self) -> str:
        """The division by sequences."""
        train = "endless" if self.examples is None else f"{self.examples:,} sequences"
        test = f"test {self.test_examples:,} (locked)" if self.test_examples else "no test split"
        return f"train {train}, val {self.val_examples:,} sequences, {test}"


class SyntheticDataset(Dataset):
    """Sequence i of a split is a function of i, and of the seed if sequences are not repeated."""

    def __init__(
        self,
        task: Task,
        sizes: dict[Split, int | None],
        site: DataSite,
        described: dict[str, Any],
    ) -> None:
        self.task = task
        self.sizes = sizes
        self.splits = tuple(sizes)
        self.tokenizer = None
        self.vocab_size = site.vocab_size
        self.block_size = site.block_size
        self.exact = True
        # A task whose rule changes has the same fields, but not the same sequences.
        first = sha256()
        for split in SPLITS:
            for number in range(_PRINTED):
                for ids in self.example(split, number, 0):
                    first.update(ids.tobytes())
        sizes_of = [sizes[split] for split in SPLITS]
        self.fingerprint = digest(described, sizes_of, self.block_size, first.hexdigest())

    def n_tokens(self, split: Split) -> int | None:
        """Tokens in a split, or None for endless training data."""
        size = self.sizes[split]
        # One more than the inputs: a target can be what no input is.
        return None if size is None else size * (self.block_size + 1)

    def example(self, split: Split, number: int, seed: int) -> tuple[Ids, Ids]:
        """Inputs and targets (T,) of a sequence; raises the task's errors."""
        training = split == "train"
        if training:
            stream = _NEW if self.sizes["train"] is None else _FIXED
        else:
            stream = _VAL if split == "val" else _TEST
        rng = _generator(stream, seed if stream == _NEW else 0, number)
        return self.task.example(rng, self.vocab_size, self.block_size, training=training)

    def rows_in(self, split: Split, block_size: int) -> int | None:
        """`val_examples` or `test_examples`."""
        return self.sizes[split]

    def rows(
        self, split: Split, first: int, count: int, *, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        """Inputs and targets, both (count, T) int64; see `Dataset.rows`."""
        if block_size != self.block_size:
            raise StrawberryError(f"sequences have {self.block_size} tokens, expected {block_size}")
        size = self.sizes[split]
        rows = []
        for place in range(first, first + count):
            number = place
            if size is not None:
                turn, rest = divmod(place, size)
                number = int(_order(size, turn, seed)[rest]) if split == "train" else rest
            rows.append(self.example(split, number, seed))
        inputs, targets = (np.stack(parts) for parts in zip(*rows, strict=True))
        return inputs, targets


@functools.lru_cache(maxsize=2)  # a batch may stand on both sides of an end
def _order(size: int, turn: int, seed: int) -> Ids:
    """The order of a fixed set in its `turn`th pass."""
    return _generator(_ORDER, seed, turn).permutation(size)


def _generator(stream: int, seed: int, number: int) -> np.random.Generator:
    """A random generator for these arguments, independent of that of any others."""
    key = np.array([seed & _WORD, number & _WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))
