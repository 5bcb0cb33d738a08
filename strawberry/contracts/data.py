"""The contracts around data: what a source, a data set, a corpus and a tokenizer have to offer.

Shapes: B batch, T tokens of a window (`block_size`).

A `DataSource` and a `TokenizerSource` are what a recipe names: their keyword-only parameters are
the recipe's fields. Opened, they give a `Dataset` and a `Tokenizer`. Nothing here imports torch.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from strawberry.contracts.ids import checked_ids
from strawberry.errors import StrawberryError

_R = TypeVar("_R")
Split: TypeAlias = Literal["train", "val", "test"]
Ids: TypeAlias = npt.NDArray[np.int64]
SPLITS: tuple[Split, Split] = ("train", "val")
"""The splits that training and its evaluations read."""
TEST: Split = "test"
"""The split that is locked: it is opened once, when all is decided."""
EVERY: tuple[Split, ...] = (*SPLITS, TEST)
IGNORED = -1
"""The target of a position that is not predicted."""
UNPREDICTED = (IGNORED, -100)
"""All targets that say so: ours, and that of torch's own loss."""

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with (what is being done, bytes done, bytes in all or None); cheap, and often."""


def silent(stage: str, done: int, total: int | None) -> None:
    """The progress callback that shows nothing."""


class Tokenizer(abc.ABC):
    """Text to ids and back. Ids run from 0 to `vocab_size - 1`.

    Attributes:
        vocab_size: number of ids, special tokens included.
        special_tokens: text of each special token, and its id.
        eot: the id that ends each document; it also starts a generation without a prompt.
        fingerprint: hexadecimal digest of everything that decides the ids.
        gaps: ids between 0 and `vocab_size - 1` that stand for nothing; they are never generated.
        lossless: whether the bytes of a text's ids are that text. Where it is False, bits per byte
            are those of another text, which runs are told to have declared.
        use: what the recipe calls it, for messages; set by who opens it.
    """

    vocab_size: int
    special_tokens: dict[str, int]
    eot: int
    fingerprint: str
    gaps: tuple[int, ...] = ()
    lossless: bool = True
    use: str = ""

    @abc.abstractmethod
    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of `text`; with `special`, the texts of special tokens become their ids."""

    @abc.abstractmethod
    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The UTF-8 bytes that `ids` add to a text, one after another.

        One id may hold a part of a character.

        Raises:
            ValueError: an id is not in the vocabulary.
        """

    @abc.abstractmethod
    def save(self, path: Path) -> None:
        """Write it to `path` (a `tokenizer.json`), atomically."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; what is not whole UTF-8 becomes the replacement character.

        Override it where a text is more than the bytes of its ids, such as one whose first blank
        is dropped.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def unsettled(self, ids: Sequence[int]) -> int:
        """How many of the last ids may read otherwise once others follow.

        Replacement characters at the end of a text are known to; override it where there is more.
        """
        return 0

    @functools.cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of text that each id stands for, (vocab_size,); 0 for `eot`."""
        lengths = np.array([len(self.decode_bytes([i])) for i in range(self.vocab_size)], np.int64)
        lengths[self.eot] = 0
        return lengths

    def encode_batch(
        self, texts: Sequence[str], special: bool = False
    ) -> list[npt.NDArray[np.uint32]]:
        """The ids of each text; override it where threads help."""
        return [checked_ids(self.encode(text, special), self) for text in texts]


class Corpus(abc.ABC):
    """Documents of text, already divided into splits; it can be gone through again and again.

    Attributes:
        splits: `SPLITS`, or `EVERY` where some text is held back for a test.
        fingerprint: hexadecimal digest of the documents and of how they are divided.
        n_documents: how many there are.
        n_empty: how many more were left out, because there is no text in them.
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
    """Rows of ids: each a window of T inputs, and the T targets that they predict.

    Attributes:
        tokenizer: what made the ids, or None where they are not text.
        vocab_size: every id is less than this.
        fingerprint: hexadecimal digest of all that rows depend on beside their arguments.
        exact: whether each target that is predicted is the only right answer, so that evaluation
            tells the share of right ones beside the loss.
        predicts_all: whether every target is predicted; False where some are left out on purpose,
            such as prompts. That matters where there is a tokenizer.
        notes: what a user should know of the data, such as documents that were left out.
        entry: the entry of the cache that holds the whole of it, if one does.
        splits: `SPLITS`, or `EVERY` where some of it is held back for a test.
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
        """The id that ends a document, and so begins the next; None where nothing says which."""
        return None if self.tokenizer is None else self.tokenizer.eot

    @abc.abstractmethod
    def n_tokens(self, split: Split) -> int | None:
        """Tokens in a split, or None where they are generated without end."""

    @abc.abstractmethod
    def rows(
        self, split: Split, first: int, count: int, *, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        """Rows `first` to `first + count - 1` of a split: inputs and targets, (count, T) int64.

        A target of -1 (or -100) is not predicted. A split is an endless sequence of rows, and each
        row is a pure function of the split, its number, `block_size` and `seed`. A step of N
        sequences takes rows `step * N` to `step * N + N - 1`, however micro-batches and ranks
        share them. Rows of `train` are drawn with `seed`. Those of `val` and `test` are the same
        for every seed.
        """

    def rows_in(self, split: Split, block_size: int) -> int | None:
        """How many rows `val` or `test` has before they come again; None where they never do."""
        return None

    def arrays(self, split: Split) -> Sequence[npt.NDArray[Any]] | None:
        """All ids of a split, as arrays one after another; None where they are generated.

        Splits are compared by it: what stands in both is told.
        """
        return None

    def n_bytes(self, split: Split, targets: Ids) -> float | None:
        """UTF-8 bytes of the text that these targets of a split stand for, negative ones aside.

        Bits per byte are computed with it. None where there is no text.
        """
        return None

    def texts(self, split: Split) -> Iterator[str] | None:
        """The documents that the ids of `arrays` stand for, in order; None where they are gone.

        The referee compares ids and bytes with them.
        """
        return None

    def groups(self, split: Split, first: int, count: int, *, block_size: int) -> Ids | None:
        """The document, by number, in which each of these rows begins; None where that is unknown.

        Rows of one document are alike, so that standard errors are taken over documents.
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
    """What a source of data, and one of tokenizers, is told.

    Attributes:
        vocab_size: the model's; no id may reach it.
        block_size: the model's longest window.
        seed: of the order of training rows: `train.data_seed`, or else the recipe's `seed`.
        cache: folder for whatever is derived; its entries are keyed by content.
        folders: where a relative path is looked for, in this order.
        tokenizer: gives the recipe's tokenizer for a corpus (trained on it, if need be).
        progress: called while something slow goes on.
    """

    vocab_size: int
    block_size: int
    seed: int
    cache: Path
    folders: tuple[Path, ...]
    tokenizer: Callable[[Corpus], Tokenizer]
    progress: Progress = silent


class DataSource(abc.ABC):
    """Where a recipe's data comes from. Constructed with `(site, *, fields)`, a `DataSite`.

    Attributes:
        prompt: a text that its documents may begin with, for the sample at the end of a run, which
            goes on from it; empty where a model begins a document by itself.
    """

    prompt: ClassVar[str] = ""

    def __init__(self, site: DataSite) -> None:
        self.site = site

    @abc.abstractmethod
    def open(self) -> Dataset:
        """The data set, ready for batches.

        Raises:
            FieldError: the value of a field can't work (a path that is not there); the message
                reaches the user with that field's line in the recipe.
            StrawberryError: anything else that the user can mend.
        """

    def known_ids(self, of_recipe: int | None) -> int | None:
        """How many ids its texts can have, where that is known without opening it; else None.

        Args:
            of_recipe: the same of the recipe's tokenizer: the answer of a source that uses it.
        """
        return None

    def divided(self) -> str:
        """How it is divided into splits, in words, as far as that is known without opening it."""
        return ""


@dataclass(frozen=True, slots=True)
class TaskSite:
    """What a task is told of the model that is trained on it.

    Attributes:
        vocab_size: the model's; every id is less than this.
        block_size: tokens of its sequences.
    """

    vocab_size: int
    block_size: int


class Task(abc.ABC):
    """A synthetic probe: sequences made by a rule, and the answers that the rule gives.

    Constructed with `(site, *, fields)`, a `TaskSite`. A recipe names it in
    `data: {use: synthetic, task: NAME}`.
    """

    def __init__(self, site: TaskSite) -> None:
        self.site = site

    @abc.abstractmethod
    def example(
        self, rng: np.random.Generator, vocab_size: int, length: int, *, training: bool
    ) -> tuple[Ids, Ids]:
        """Inputs and targets of one sequence, (length,) int64 each; a target of -1 has no answer.

        A function of its arguments alone. Where it is not `training`, every target but -1 is the
        only right one after the inputs up to it, its own included.

        Args:
            rng: what to draw from.
            vocab_size: every id is less than this.
            length: tokens of the sequence.
            training: whether it is learned from; a rule may have easier sequences for that, or
                more targets.

        Raises:
            FieldError: a field has no room in that vocabulary or length.
            StrawberryError: vocabulary or length themselves can't do.
        """


class TokenizerSource(abc.ABC):
    """What a recipe says of its tokenizer. Constructed with `(site, *, fields)`, a `DataSite`."""

    def __init__(self, site: DataSite) -> None:
        self.site = site

    @abc.abstractmethod
    def open(self, corpus: Corpus) -> Tokenizer:
        """The tokenizer for that corpus; raises as `DataSource.open` does."""

    def known_ids(self) -> int | None:
        """How many ids it has, where that is known without a corpus; else None."""
        return None

    def load(self, path: Path) -> Tokenizer | None:
        """What `Tokenizer.save` wrote, in a format of its own; None for a `tokenizer.json`."""
        return None
