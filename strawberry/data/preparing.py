"""Prepared folders from text: one that is whole, or parts that are added to a folder.

A folder of parts has a `tokenizer.json` and prepared folders `part-*`, each self-contained and
named by its text. Several processes may add parts at the same time, on one machine or on several
with a common file system: a part appears when it is complete. The same text again is the same part.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strawberry.contracts.data import TEST, Corpus, Progress, silent
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data import bpe
from strawberry.data.division import check_division
from strawberry.data.packed import (
    META,
    TOKENIZER,
    PackedDataset,
    PackedMeta,
    join_packed,
    open_packed,
    pack,
    read_meta,
)
from strawberry.data.texts import TRAIN_BYTES, cached_bpe, held_out_corpus, left_out
from strawberry.data.tokenizer import load_tokenizer
from strawberry.errors import FieldError, StrawberryError
from strawberry.files.atomic import new_folder
from strawberry.files.lock import entry_lock
from strawberry.files.storage import FileFingerprints, cache_folder, digest

PART = "part-"
"""The beginning of a part's name."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The result of `prepare`: counts, and the duration of its parts in seconds.

    Attributes:
        folder: the prepared folder, or the part of one.
        written: False for a part that was there already.
    """

    folder: Path
    meta: PackedMeta
    notes: tuple[str, ...]
    corpus_seconds: float
    tokenizer_seconds: float
    encode_seconds: float
    written: bool = True


def prepare(
    paths: Sequence[str],
    out: Path,
    *,
    tokenizer: Path | None = None,
    vocab_size: int = 8192,
    data_division: float = 0.9,
    test_division: float = 0.0,
    val: str | None = None,
    test: str | None = None,
    add: bool = False,
    field: str = "text",
    special: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
) -> PreparedData:
    """Create a prepared folder from text files, folders and patterns.

    Args:
        paths: what to read.
        out: the folder to create; unless `add`, it must not exist, or be empty.
        tokenizer: a `tokenizer.json`; None trains a BPE on the training split.
        vocab_size: size of the trained BPE, special tokens included.
        data_division: fraction of the text for training.
        test_division: fraction of the text that moves from training to the locked test split.
        val: files that are the validation split, whole; None divides the text.
        test: the same for the test split.
        add: add a part to `out`, with its tokenizer if it has one.
        field: the text field of JSON objects.
        special: encode texts of special tokens within documents as their ids.
        cache: the cache folder; None takes the user's.
        progress: progress callback.

    Raises:
        StrawberryError: a path or the tokenizer is invalid, or `out` is in use.
    """
    if not 0 < data_division < 1:
        raise StrawberryError(f"data_division must be between 0 and 1, got {data_division}")
    check_division(data_division, test_division)
    if add:
        _check_parts(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StrawberryError(
            f"{out}: exists and is not empty; name another folder, or add a part to it (--add)"
        )
    cache = cache or cache_folder()
    started = time.perf_counter()
    chosen = None if tokenizer is None else load_tokenizer(tokenizer)
    if chosen is None:
        bpe.check_room(vocab_size, bpe.SPECIAL_TOKENS)
    try:
        corpus = held_out_corpus(
            paths, [Path.cwd()], {"val": val, TEST: test}, field=field,
            data_division=data_division, test_division=test_division, cache=cache,
            progress=progress,
        )  # fmt: skip
    except FieldError as error:
        raise StrawberryError(f"--{error.field}: {error}") from error
    read = time.perf_counter()
    make = _Trained(corpus, vocab_size, cache, progress)
    if add:
        chosen, folder = _shared(out, chosen, make), out / _name(corpus, special)
    else:
        chosen, folder = chosen or make(), out
    trained = time.perf_counter()
    if add and folder.is_dir():
        meta, written = read_meta(folder), False
    else:
        with new_folder(folder) as part:
            meta, written = pack(corpus, chosen, part, special=special, progress=progress), True
    ended = time.perf_counter()
    return PreparedData(
        folder, meta, left_out(corpus), read - started, trained - read, ended - trained, written
    )


@dataclass(frozen=True, slots=True)
class _Trained:
    """Trains the tokenizer of a corpus, when it is called."""

    corpus: Corpus
    vocab_size: int
    cache: Path
    progress: Progress

    def __call__(self) -> Tokenizer:
        """The tokenizer, from the cache if it was trained before."""
        return cached_bpe(
            self.corpus, self.vocab_size, special_tokens=bpe.SPECIAL_TOKENS, pattern="gpt4",
            train_bytes=TRAIN_BYTES, cache=self.cache, progress=self.progress,
        )  # fmt: skip


def _check_parts(out: Path) -> None:
    """Raises StrawberryError if a folder is something else than one of parts."""
    if out.exists() and not out.is_dir():
        raise StrawberryError(f"{out}: is a file; name a folder")
    if (out / META).exists():
        raise StrawberryError(
            f"{out}: is a prepared folder that was written whole; only a folder of parts can grow"
        )
    others = [f for f in out.iterdir() if f.name != TOKENIZER] if out.exists() else []
    strange = [f.name for f in others if not f.name.startswith((".", PART)) and f.name != "locks"]
    if strange:
        raise StrawberryError(f"{out}: contains {min(strange)}, which is no part of prepared data")


def _shared(out: Path, chosen: Tokenizer | None, make: _Trained) -> Tokenizer:
    """The folder's tokenizer; the first process to come writes it.

    Raises StrawberryError if another one was asked for.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / TOKENIZER
    with entry_lock(out, "tokenizer"):
        if not file.exists():
            tokenizer = chosen or make()
            tokenizer.save(file)
            return tokenizer
    shared = load_tokenizer(file)
    if chosen is not None and chosen.fingerprint != shared.fingerprint:
        raise StrawberryError(f"--tokenizer: {file} is another one, with which {out} was begun")
    return shared


def _name(corpus: Corpus, special: bool) -> str:
    """A part's name, by its text and how that is encoded."""
    return PART + digest(corpus.fingerprint, special)[:16]


def part_folders(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """The complete parts of a folder, by name; those of `names` if given.

    Raises StrawberryError if one of them is missing.
    """
    parts = {f.name: f for f in sorted(folder.glob(f"{PART}*")) if (f / META).is_file()}
    if names is None:
        return list(parts.values())
    for name in names:
        if name not in parts:
            raise StrawberryError(f"{folder}: no part {name}; it has {', '.join(parts) or 'none'}")
    return [parts[name] for name in sorted(set(names))]


def open_parts(folders: Sequence[Path], identities: FileFingerprints) -> PackedDataset:
    """The data set of several prepared folders with one tokenizer, one after the other.

    Raises:
        DamagedFileError: a file of one is missing, truncated or altered.
        StrawberryError: their tokenizers differ.
    """
    opened: list[PackedDataset] = []
    metas = [read_meta(folder) for folder in folders]
    for folder, meta in zip(folders, metas, strict=True):
        if meta.tokenizer != metas[0].tokenizer:
            raise StrawberryError(
                f"{folder}: was encoded with another tokenizer than {folders[0].name}"
            )
        shared: Any = opened[0].tokenizer if opened else None
        opened.append(open_packed(folder, identities, shared))
    return join_packed(opened)
