"""Build a data set from text files: corpus, tokenizer and ids, each cached.

Cache keys contain the source's content and every relevant setting, so entries never need
invalidation. A damaged entry is built again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from strawberry.contracts.data import Corpus, DataSite, Progress, silent
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data import bpe
from strawberry.data.corpus import FileCorpus
from strawberry.data.division import check_division
from strawberry.data.documents import read_documents
from strawberry.data.files import find_files
from strawberry.data.packed import FORMAT, TOKENIZER, PackedDataset, PackedMeta, open_packed, pack
from strawberry.data.reading import refuse_pickle
from strawberry.data.tokenizer import load_tokenizer
from strawberry.errors import StrawberryError
from strawberry.files.atomic import explained, new_folder, remove_orphans, write_atomic
from strawberry.files.lock import entry_lock
from strawberry.files.storage import (
    DamagedFileError,
    FileFingerprints,
    cache_folder,
    digest,
    file_digest,
)

TRAIN_BYTES = 100_000_000
"""Maximum text from which a BPE is trained; more text changes hardly any merge."""

_LEAST = 1 << 16  # bytes that are worth taking of a longer document
_SUM = "tokenizer.sha256"
_T = TypeVar("_T")


def text_corpus(
    paths: Sequence[str],
    folders: Sequence[Path],
    *,
    field: str = "text",
    data_division: float = 0.9,
    test_division: float = 0.0,
    cache: Path,
    progress: Progress = silent,
) -> FileCorpus:
    """The corpus of text files, folders and patterns; raises StrawberryError if there is none."""
    for path in paths:
        refuse_pickle(Path(path))  # before it is looked for: most people no longer have theirs
    files = [file for path in paths for file in find_files(path, folders)]
    return FileCorpus(
        list(dict.fromkeys(files)),
        lambda file: read_documents(file, field),
        reader=f"text 1, {field}",
        data_division=data_division,
        test_division=test_division,
        identities=FileFingerprints(cache),
        progress=progress,
    )


def text_dataset(corpus: Corpus, site: DataSite, special: bool = False) -> PackedDataset:
    """The packed data set of a corpus under the recipe's tokenizer, from the cache if present.

    With `special`, texts of special tokens within documents become their ids.
    """
    tokenizer = site.tokenizer(corpus)
    identities = FileFingerprints(site.cache)
    key = digest("tokens", FORMAT, corpus.fingerprint, tokenizer.fingerprint, special)
    folder = _entry(site.cache, key[:32])

    def make() -> None:
        with new_folder(folder) as part:
            pack(corpus, tokenizer, part, special=special, progress=site.progress)

    dataset = _cached(
        folder, lambda: open_packed(folder, identities, tokenizer), make, site.progress
    )
    dataset.notes, dataset.entry = left_out(corpus), folder.name
    dataset.corpus = corpus
    return dataset


def kept_dataset(entry: str, cache: Path) -> PackedDataset | None:
    """The data set of a cache entry, without its text; None if the entry is missing."""
    folder = _entry(cache, entry)
    try:
        dataset = open_packed(folder, FileFingerprints(cache))
    except StrawberryError:
        return None
    dataset.notes = (f"its text is missing; its tokens are in {folder}",)
    dataset.entry = entry
    return dataset


def _entry(cache: Path, name: str) -> Path:
    return cache / "tokens" / name


def left_out(corpus: Corpus) -> tuple[str, ...]:
    """A note about documents that were left out, if any."""
    if not corpus.n_empty:
        return ()
    total = corpus.n_empty + corpus.n_documents
    return (f"{corpus.n_empty:,} of {total:,} documents are empty or null and were left out",)


def cached_bpe(
    corpus: Corpus,
    vocab_size: int,
    *,
    special_tokens: Sequence[str],
    pattern: str,
    train_bytes: int,
    cache: Path,
    progress: Progress = silent,
) -> Tokenizer:
    """The BPE trained on a corpus' training split, from the cache if present."""
    settings = [vocab_size, list(special_tokens), bpe.split_pattern(pattern), train_bytes]
    key = digest("bpe", corpus.fingerprint, settings, bpe.source_digest())
    folder = cache / "tokenizers" / key[:32]

    def read() -> Tokenizer:
        try:
            expected = (folder / _SUM).read_text().strip()
            actual = file_digest(folder / TOKENIZER)
        except (OSError, ValueError) as error:
            raise DamagedFileError(f"{folder}: {error}") from error
        if actual != expected:
            raise DamagedFileError(f"{folder / TOKENIZER}: damaged: wrong checksum")
        return load_tokenizer(folder / TOKENIZER)

    def make() -> None:
        limit = min(train_bytes, corpus.n_bytes("train"))
        learned = bpe.train_bpe(
            sample(corpus, limit),
            vocab_size,
            special_tokens=special_tokens,
            pattern=pattern,
            n_bytes=limit,
            progress=progress,
        )
        with new_folder(folder) as part:
            learned.save(part / TOKENIZER)
            write_atomic(part / _SUM, f"{file_digest(part / TOKENIZER)}\n")

    return _cached(folder, read, make, progress)


def sample(corpus: Corpus, n_bytes: int) -> Iterator[str]:
    """Training documents, spread evenly over the corpus, of at most `n_bytes` in all."""
    share = min(1.0, n_bytes / max(1, corpus.n_bytes("train")))
    seen = taken = 0
    for text in corpus.documents("train"):
        size = len(text.encode())
        seen += size
        due = min(size, round(seen * share) - taken)
        if due >= min(size, _LEAST):
            taken += due
            yield text if due == size else text.encode()[:due].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The result of `prepare`: counts, and the duration of its parts in seconds."""

    folder: Path
    meta: PackedMeta
    notes: tuple[str, ...]
    corpus_seconds: float
    tokenizer_seconds: float
    encode_seconds: float


def prepare(
    paths: Sequence[str],
    out: Path,
    *,
    tokenizer: Path | None = None,
    vocab_size: int = 8192,
    data_division: float = 0.9,
    test_division: float = 0.0,
    field: str = "text",
    special: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
) -> PreparedData:
    """Create a prepared folder from text files, folders and patterns.

    Args:
        paths: what to read.
        out: the folder to create; it must not exist, or be empty.
        tokenizer: a `tokenizer.json`; None trains a BPE on the training split.
        vocab_size: size of the trained BPE, special tokens included.
        data_division: fraction of the text for training.
        test_division: fraction of the text that moves from training to the locked test split.
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
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StrawberryError(f"{out}: exists and is not empty; name another folder")
    cache = cache or cache_folder()
    started = time.perf_counter()
    chosen = None if tokenizer is None else load_tokenizer(tokenizer)
    if chosen is None:
        bpe.check_room(vocab_size, bpe.SPECIAL_TOKENS)
    corpus = text_corpus(
        paths, [Path.cwd()], field=field, data_division=data_division,
        test_division=test_division, cache=cache, progress=progress,
    )  # fmt: skip
    read = time.perf_counter()
    if chosen is None:
        chosen = cached_bpe(
            corpus, vocab_size, special_tokens=bpe.SPECIAL_TOKENS, pattern="gpt4",
            train_bytes=TRAIN_BYTES, cache=cache, progress=progress,
        )  # fmt: skip
    trained = time.perf_counter()
    with new_folder(out) as part:
        meta = pack(corpus, chosen, part, special=special, progress=progress)
    ended = time.perf_counter()
    return PreparedData(
        out, meta, left_out(corpus), read - started, trained - read, ended - trained
    )


@dataclass(frozen=True, slots=True)
class TrainedTokenizer:
    """A tokenizer from `train_tokenizer`, with its bytes of text and training seconds."""

    tokenizer: Tokenizer
    notes: tuple[str, ...]
    n_bytes: int
    seconds: float


def train_tokenizer(
    paths: Sequence[str],
    out: Path,
    *,
    vocab_size: int,
    special_tokens: Sequence[str] | None = None,
    pattern: str = "gpt4",
    field: str = "text",
    cache: Path | None = None,
    progress: Progress = silent,
) -> TrainedTokenizer:
    """Train a BPE on all text in files, folders and patterns, and save it.

    Args:
        paths: what to read.
        out: the `tokenizer.json` to write; an existing file is replaced.
        vocab_size: total number of ids, special tokens included.
        special_tokens: texts of special tokens; None takes the defaults.
        pattern: a name in `PATTERNS`, or a regular expression.
        field: the text field of JSON objects.
        cache: the cache folder; None takes the user's.
        progress: progress callback.

    Raises:
        StrawberryError: a path or a setting is invalid, or `out` can't be written.
    """
    if out.is_dir():
        raise StrawberryError(f"{out}: is a folder; name the file to write, such as tokenizer.json")
    special = bpe.SPECIAL_TOKENS if special_tokens is None else tuple(special_tokens)
    bpe.check_special(special)
    bpe.check_room(vocab_size, special)
    corpus = text_corpus(
        paths, [Path.cwd()], field=field, data_division=1.0, cache=cache or cache_folder(),
        progress=progress,
    )  # fmt: skip
    size = min(TRAIN_BYTES, corpus.n_bytes("train"))
    started = time.perf_counter()
    learned = bpe.train_bpe(
        sample(corpus, size), vocab_size, special_tokens=special, pattern=pattern, n_bytes=size,
        progress=progress,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    learned.save(out)
    return TrainedTokenizer(learned, left_out(corpus), size, seconds)


def _cached(
    folder: Path, read: Callable[[], _T], make: Callable[[], None], progress: Progress
) -> _T:
    """Read a cache entry; if missing or damaged, build it under its lock."""
    if folder.exists():
        with contextlib.suppress(DamagedFileError):
            return read()
    with entry_lock(folder.parent.parent, f"{folder.parent.name}-{folder.name}"):
        if folder.exists():  # made by another process while we waited, or damaged
            try:
                return read()
            except DamagedFileError as error:
                progress(f"rebuilt, because it was damaged: {error}", 0, None)
                with explained("can't replace a damaged cache entry"):
                    shutil.rmtree(folder)
        remove_orphans(folder)
        make()
        return read()
