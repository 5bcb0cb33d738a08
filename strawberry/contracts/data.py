"""Contracts of data: source, data set, corpus and tokenizer.

Shapes: B batch, T tokens of a window (`block_size`).

A recipe names a `DataSource` and a `TokenizerSource`, whose keyword-only parameters are recipe
fields. Opened, they give a `Dataset` and a `Tokenizer`. This module does not import torch.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from strawberry.contracts.tokenizer import Tokenizer
from strawberry.errors import StrawberryError

_R = TypeVar("_R")
Split: TypeAlias = Literal["train", "val", "test"]
Ids: TypeAlias = npt.NDArray[np.int64]
SPLITS: tuple[Split, Split] = ("train", "val")
"""The splits that training and its evaluations read."""
TEST: Split = "test"
"""The locked split: it is opened once, for the final measurement."""
EVERY: tuple[Split, ...] = (*SPLITS, TEST)
IGNORED = -1
"""The target of an ignored position."""
UNPREDICTED = (IGNORED, -100)
"""All targets that mean ignored: ours, and that of torch's loss."""

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with (current work, bytes done, total bytes or None); must be cheap, because it is called
often.
"""


def silent(stage: str, done: int, total: int | None) -> None:
    """A progress callback that shows nothing."""


class Corpus(abc.ABC):
    """Documents of text, divided into splits; they can be read repeatedly.

    Attributes:
        splits: `SPLITS`, or `EVERY` with a locked test split.
        fingerprint: hexadecimal digest of the documents and their division.
        n_documents: number of documents.
        n_empty: number of empty documents, which are left out.
    """

    splits: tuple[Split, ...] = SPLITS
    fingerprint: str
    n_documents: int
    n_empty: int = 0

    @abc.abstractmethod
    def documents(self, split: Split) -> Iterator[str]:
        """The documents of a split, always in the same order."""

    @abc.abstractmethod
    def n_bytes(self, split: Split) -> int:
        """UTF-8 bytes in a split."""


class Dataset(abc.ABC):
    """Rows of ids: each is a window of T inputs, with the T targets to predict.

    Attributes:
        tokenizer: the tokenizer of the ids, or None if they are not text.
        vocab_size: upper bound of the ids, exclusive.
        fingerprint: hexadecimal digest of everything that determines rows, apart from their
            arguments.
        exact: True if every target is the only right answer; evaluation then also reports the share
            of right answers.
        predicts_all: whether every target is predicted; False where some are left out on purpose,
            such as prompts. That matters where there is a tokenizer.
        notes: notes for the user about the data, such as documents that were left out.
        entry: the cache entry with all of the data, if any.
        splits: `SPLITS`, or `EVERY` with a locked test split.
    """

    splits: tuple[Split, ...] = SPLITS
    tokenizer: Tokenizer | None
    vocab_size: int
    fingerprint: str
    exact: bool = False
    predicts_all: bool = True
    notes: tuple[str, ...] = ()
    entry: str | None = None

    @property
    def eot(self) -> int | None:
        """The id that ends a document and begins the next; None if unknown."""
        return None if self.tokenizer is None else self.tokenizer.eot

    @abc.abstractmethod
    def n_tokens(self, split: Split) -> int | None:
        """Number of tokens in a split, or None if they are generated without end."""

    @abc.abstractmethod
    def rows(
        self, split: Split, first: int, count: int, *, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        """Rows `first` to `first + count - 1` of a split: inputs and targets, (count, T) int64.

        A target of -1 (or -100) is ignored. A split is an endless sequence of rows, and each row is
        a pure function of the split, its number, `block_size` and `seed`. A step of N sequences
        takes rows `step * N` to `step * N + N - 1`, for any division into micro-batches and ranks.
        Rows of `train` are drawn with `seed`. Those of `val` and `test` are the same for every
        seed.
        """

    def rows_in(self, split: Split, block_size: int) -> int | None:
        """Number of rows of `val` or `test` before they repeat; None if they never do."""
        return None

    def arrays(self, split: Split) -> Sequence[npt.NDArray[Any]] | None:
        """All ids of a split, as consecutive arrays; None if they are generated.

        They are used to find text that several splits share.
        """
        return None

    def n_bytes(self, split: Split, targets: Ids) -> float | None:
        """UTF-8 bytes of the text of these targets of a split, without negative ones.

        Used for bits per byte. None without text.
        """
        return None

    def texts(self, split: Split) -> Iterator[str] | None:
        """The documents that the ids of `arrays` stand for, in order; None where they are gone.

        The referee compares ids and bytes with them.
        """
        return None

    def groups(self, split: Split, first: int, count: int, *, block_size: int) -> Ids | None:
        """The number of the document in which each of these rows begins; None if unknown.

        Rows of one document are alike, so standard errors are computed over documents.
        """
        return None

    def sources(self, split: Split, first: int, count: int) -> tuple[Sequence[str], Ids] | None:
        """Names of the sources of a mixture, and the number of each row's source, (count,).

        Evaluation reports the loss of each source as `val_NAME_loss`. None if there is only one.
        """
        return None

    def seal(self) -> None:
        """Lock the test split: from then on its rows, ids and text raise StrawberryError."""
        self.guard(_check_open)

    def guard(self, check: Callable[[Split], None]) -> None:
        """Call `check` before each reading of rows, ids or text of a split; it may raise."""
        for name in ("rows", "arrays", "texts"):
            setattr(self, name, _guarded(getattr(self, name), check))


def _guarded(read: Callable[..., _R], check: Callable[[Split], None]) -> Callable[..., _R]:
    @functools.wraps(read)
    def checked(split: Split, *args: Any, **kwargs: Any) -> _R:
        check(split)
        return read(split, *args, **kwargs)

    return checked


def _check_open(split: Split) -> None:
    if split == TEST:
        raise StrawberryError(
            "the test split is locked; `strawberry ablate --final FOLDER` and `strawberry "
            "eval --split test RUN` open it, and record that in the ledger"
        )


@dataclass(frozen=True, slots=True)
class DataSite:
    """The site of a data source or a tokenizer source.

    Attributes:
        vocab_size: the model's vocabulary; ids must be below it.
        block_size: the model's longest window.
        seed: seed of the order of training rows: `train.data_seed`, or else the recipe's `seed`.
        cache: folder for derived files; entries are keyed by content.
        folders: where a relative path is looked up, in this order.
        tokenizer: returns the recipe's tokenizer for a corpus (trained on it, if needed).
        progress: progress callback for slow work.
    """

    vocab_size: int
    block_size: int
    seed: int
    cache: Path
    folders: tuple[Path, ...]
    tokenizer: Callable[[Corpus], Tokenizer]
    progress: Progress = silent


class DataSource(abc.ABC):
    """The source of a recipe's data. Constructed with `(site, *, fields)`, a `DataSite`.

    Numbers in order, each row from a number of its own:

        class Counting(DataSource):
            def open(self):
                return Numbers(self.site.vocab_size)

        class Numbers(Dataset):
            tokenizer, fingerprint = None, "numbers"

            def __init__(self, vocab_size):
                self.vocab_size = vocab_size

            def n_tokens(self, split):
                return None

            def rows(self, split, first, count, *, block_size, seed):
                key = (1, seed) if split == "train" else (0,)
                draws = (np.random.default_rng((*key, first + row)) for row in range(count))
                begins = np.array([draw.integers(self.vocab_size) for draw in draws])
                ids = (begins[:, None] + np.arange(block_size + 1)) % self.vocab_size
                return ids[:, :-1], ids[:, 1:]

    Attributes:
        prompt: a text with which its documents may begin, for the sample at the end of a run; empty
            if a model starts a document by itself.
        temperature: the default of `generate`, which shows a small model of such text at its best.
        top_p: the same.
        no_repeat: the same: no run of this many tokens comes twice; 0 allows it.
    """

    prompt: str = ""
    temperature: float = 0.75
    top_p: float = 0.9
    no_repeat: int = 8

    def __init__(self, site: DataSite) -> None:
        self.site = site

    def sampled_as(self, source: DataSource) -> None:
        """Take the prompt and the settings of sampling from a source inside of this one."""
        self.prompt, self.temperature = source.prompt, source.temperature
        self.top_p, self.no_repeat = source.top_p, source.no_repeat

    @abc.abstractmethod
    def open(self) -> Dataset:
        """Open the data set, ready for batches.

        Raises:
            FieldError: the value of a field is invalid (a missing path, for example); the error is
                located at that field in the recipe.
            StrawberryError: any other error that the user can fix.
        """

    def known_ids(self, of_recipe: int | None) -> int | None:
        """Maximum number of different ids in its texts, if known without opening it; else None.

        Args:
            of_recipe: the same for the recipe's tokenizer: the answer of a source that uses it.
        """
        return None

    def divided(self) -> str:
        """The division into splits, in words, if known without opening the data."""
        return ""


@dataclass(frozen=True, slots=True)
class TaskSite:
    """The site of a task: the model that is trained on it.

    Attributes:
        vocab_size: the model's; every id is less than this.
        block_size: tokens of its sequences.
    """

    vocab_size: int
    block_size: int


class Task(abc.ABC):
    """A synthetic task: sequences from a rule, with answers from the same rule.

    Constructed with `(site, *, fields)`, a `TaskSite`. A recipe names it in
    `data: {use: synthetic, task: NAME}`. Random ids, twice:

        class Again(Task):
            def example(self, rng, vocab_size, length, *, training):
                once = rng.integers(vocab_size, size=length // 2)
                ids = np.resize(once, length + 1)
                targets = ids[1:].copy()
                targets[: len(once) - 1] = IGNORED
                return ids[:-1], targets
    """

    def __init__(self, site: TaskSite) -> None:
        self.site = site

    @abc.abstractmethod
    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets of one sequence, (length,) int64 each; a target of -1 has no answer.

        A function of its arguments alone. If not `training`, every target except -1 is the only
        right answer after the inputs up to and including its position.

        Args:
            rng: the random generator.
            vocab_size: upper bound of the ids, exclusive.
            length: number of tokens of the sequence.
            training: True for training data; a rule may then give easier sequences, or more
                targets.

        Raises:
            FieldError: a field does not fit that vocabulary or length.
            StrawberryError: the vocabulary or the length is impossible.
        """


class TokenizerSource(abc.ABC):
    """The source of a recipe's tokenizer. Constructed with `(site, *, fields)`, a `DataSite`.

    Bytes, and the end of a document:

        class Bytes(TokenizerSource):
            def open(self, corpus):
                return ByteTokenizer()

        class ByteTokenizer(Tokenizer):
            vocab_size, eot, special_tokens = 257, 256, {"<|eot|>": 256}
            fingerprint = "bytes"

            def encode(self, text, special=False):
                first, *rest = text.split("<|eot|>") if special else [text]
                return [*first.encode(), *(i for part in rest for i in (256, *part.encode()))]

            def decode_bytes(self, ids):
                return b"".join(b"<|eot|>" if i == 256 else bytes([i]) for i in ids)

            def save(self, path):
                path.write_text("{}")
    """

    def __init__(self, site: DataSite) -> None:
        self.site = site

    @abc.abstractmethod
    def open(self, corpus: Corpus) -> Tokenizer:
        """The tokenizer for that corpus; raises as `DataSource.open` does."""

    def known_ids(self) -> int | None:
        """Its vocabulary size, if known without a corpus; else None."""
        return None

    def load(self, path: Path) -> Tokenizer | None:
        """Load what `Tokenizer.save` wrote, in its own format; None for a `tokenizer.json`."""
        return None
