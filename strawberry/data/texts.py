"""Build a data set from text files: corpus, tokenizer and ids, each cached.

Cache keys contain the source's content and every relevant setting, so entries never need
invalidation. A damaged entry is built again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from strawberry.contracts.data import TEST, Corpus, DataSite, Progress, Split, silent
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data import bpe
from strawberry.data.corpora import HeldOutCorpus
from strawberry.data.corpus import FileCorpus
from strawberry.data.documents import read_documents
from strawberry.data.files import find_files
from strawberry.data.packed import FORMAT, TOKENIZER, PackedDataset, open_packed, pack
from strawberry.data.reading import refuse_pickle
from strawberry.data.tokenizer import load_tokenizer
from strawberry.errors import StrawberryError
from strawberry.files.atomic import explained, new_folder, remove_orphans, write_atomic
from strawberry.files.lock import entry_lock
from strawberry.files.storage import (
    DamagedFileError,
    FileFingerprints,
    about,
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


def held_out_corpus(
    paths: Sequence[str],
    folders: Sequence[Path],
    held: Mapping[Split, str | None],
    *,
    field: str = "text",
    data_division: float = 0.9,
    test_division: float = 0.0,
    cache: Path,
    progress: Progress = silent,
) -> Corpus:
    """As `text_corpus`; the splits of `held` are all of the text of these files, if given.

    Raises FieldError about a split whose files are missing or those of another split.
    """

    def corpus_of(files: Sequence[Path], train: float, test: float) -> Corpus:
        return text_corpus(
            [str(file) for file in files], folders, field=field, data_division=train,
            test_division=test, cache=cache, progress=progress,
        )  # fmt: skip

    for path in paths:
        refuse_pickle(Path(path))  # before it is looked for: most people no longer have theirs
    return held_out(
        lambda path: find_files(path, folders), paths, held, corpus_of, data_division, test_division
    )


def held_out(
    find: Callable[[str], Sequence[Path]],
    paths: Sequence[str],
    held: Mapping[Split, str | None],
    corpus_of: Callable[[Sequence[Path], float, float], Corpus],
    data_division: float,
    test_division: float,
) -> Corpus:
    """A corpus of files, of which some splits are files of their own.

    Args:
        find: the files of a path or pattern.
        paths: what to read; files that `held` has too are left out.
        held: the path of each split that has files of its own, or None.
        corpus_of: the corpus of files, with its `data_division` and `test_division`.
        data_division: fraction of the text that is not for validation, where no file is held out.
        test_division: fraction that moves from training to the test split, likewise.

    Raises FieldError about a split whose files are missing or those of another split.
    """
    owners: dict[Path, str] = {}
    corpora: dict[Split, Corpus] = {}
    for split, path in held.items():
        if path is None:
            continue
        with about(split):
            files = find(path)
            for file in files:
                if owners.setdefault(file.resolve(), split) != split:
                    raise StrawberryError(f"{file} is in the {owners[file.resolve()]} split too")
            corpora[split] = corpus_of([file.absolute() for file in files], 1.0, 0.0)
    every = [file.absolute() for path in paths for file in find(path)]
    left = [file for file in every if file.resolve() not in owners]
    if not left:
        raise StrawberryError(f"{', '.join(paths)}: no file is left for training")
    base = corpus_of(
        left,
        1.0 if "val" in corpora else data_division,
        0.0 if TEST in corpora else test_division,
    )
    return HeldOutCorpus(base, corpora) if corpora else base


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
