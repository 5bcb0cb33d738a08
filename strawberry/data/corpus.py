"""A corpus of files: documents that can be read repeatedly, divided into splits.

Whole documents are divided by bytes of text, so the division is the same for every
tokenizer. Documents are ranked by the digest of their content; the first ones go to validation
until it has its share. The last of these is cut, and its beginning stays in training. A corpus of
one document is thus simply cut, and copies of a document go to the same split.

The test split comes next in that order, so validation text is the same with and without it. Its
documents stay whole, unless they are too large for its share.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import EVERY, SPLITS, TEST, Corpus, Progress, Split, silent
from strawberry.errors import StrawberryError
from strawberry.files.storage import FileFingerprints, stamps

_DIGEST = 16
_LINE_END = 4096  # characters back from the cut where a line's end is looked for


@dataclass(frozen=True, slots=True)
class _Plan:
    """The assignment of documents: the split's index in `EVERY`, or the pieces of a cut document.

    A piece is a split with its first and last character.
    """

    split: npt.NDArray[np.int8]
    pieces: dict[int, list[tuple[Split, int, int | None]]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


class FileCorpus(Corpus):
    """The documents of files, in the order of the files, without empty ones.

    Args:
        files: the files to read.
        read: reads the documents of a file.
        reader: text that identifies the behaviour of `read`.
        data_division: fraction of the text that is not for validation, between 0 and 1.
        test_division: fraction of the text that moves from training to the test split.
        identities: caches the corpus of unchanged files, so that they need not be read again.
        progress: progress callback while the files are read.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], Iterator[str]],
        *,
        reader: str,
        data_division: float,
        test_division: float = 0.0,
        identities: FileFingerprints,
        progress: Progress = silent,
    ) -> None:
        self._files = list(files)
        self._read = read
        self._division = data_division
        self._test = test_division
        self.splits = EVERY if test_division else SPLITS
        self._progress = progress
        self._sizes = [_stat(path).st_size for path in self._files]
        self._stamps = self._stamp()
        self._known: _Plan | None = None
        note = f"corpus 2, {reader}, {self._divided()}"
        summary = identities.recall(self._files, note)
        if summary is None:
            summary = self._plan.summary
            identities.note(self._files, note, summary)
        self.fingerprint = str(summary["fingerprint"])
        self.n_documents = int(summary["n_documents"])
        self.n_empty = int(summary["n_empty"])
        self._n_bytes: dict[str, int] = summary["n_bytes"]
        if not self.n_documents:
            raise StrawberryError(f"{self._name()}: contains no text")

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of a split; raises StrawberryError if a file has changed."""
        plan, wanted = self._plan, EVERY.index(split)
        index = -1
        for index, text in enumerate(self._all()):
            if index in plan.pieces:
                for name, begin, end in plan.pieces[index]:
                    if name == split and (part := text[begin:end]):
                        yield part
            elif index >= plan.split.size or plan.split[index] == wanted:
                yield text
        if index + 1 != plan.split.size or self._stamp() != self._stamps:
            raise StrawberryError(f"{self._name()}: changed during reading; try again")

    def n_bytes(self, split: Split) -> int:
        """UTF-8 bytes in a split."""
        return self._n_bytes[split]

    @property
    def _plan(self) -> _Plan:
        if self._known is None:
            self._known = self._scan()
        return self._known

    def _scan(self) -> _Plan:
        """Read all documents once, for their sizes and digests."""
        digests, sizes, n_empty = bytearray(), array("Q"), 0
        for text in self._read_all("reading"):
            if not text:
                n_empty += 1
                continue
            raw = text.encode()
            digests += hashlib.sha256(raw).digest()[:_DIGEST]
            sizes.append(len(raw))
        size = np.frombuffer(sizes, dtype=np.uint64).astype(np.int64)
        total = int(size.sum())
        fingerprint = hashlib.sha256(bytes(digests) + self._divided().encode()).hexdigest()
        summary = {"fingerprint": fingerprint, "n_documents": size.size, "n_empty": n_empty}
        if not total:
            return _Plan(np.zeros(0, np.int8), summary={**summary, "n_bytes": {}})
        ranks = np.argsort(np.frombuffer(bytes(digests), f"S{_DIGEST}"), kind="stable")
        plan = _Plan(np.zeros(size.size, np.int8), summary=summary)
        shares: dict[Split, int] = {"val": total - round(total * self._division)}
        if self._test:
            shares[TEST] = round(total * self._test)
        taken = self._divide(plan, ranks, size, shares)
        summary["n_bytes"] = {"train": total - sum(taken.values()), **taken}
        return plan

    def _divided(self) -> str:
        """Text that identifies the division."""
        return f"{self._division!r}, test {self._test!r}" if self._test else f"{self._division!r}"

    def _divide(
        self,
        plan: _Plan,
        order: npt.NDArray[np.int64],
        size: npt.NDArray[np.int64],
        shares: dict[Split, int],
    ) -> dict[Split, int]:
        """Assign documents to splits in the given `order`; returns the bytes of each split."""
        left, ends, amounts = size.copy(), dict[int, int](), dict[Split, int]()
        for split, share in shares.items():
            filled = np.cumsum(left[order])
            whole = int(np.searchsorted(filled, share, side="right"))
            plan.split[order[:whole]] = EVERY.index(split)
            taken = int(filled[whole - 1]) if whole else 0
            order = order[whole:]
            if taken < share and (split != TEST or 2 * taken < share):
                cut = int(order[0])
                at, kept = self._cut(cut, int(left[cut]) - (share - taken))
                plan.pieces.setdefault(cut, []).append((split, at, ends.get(cut)))
                taken += int(left[cut]) - kept
                left[cut], ends[cut] = kept, at
                order = np.roll(order, -1)  # what is left of it is the last to be taken
            amounts[split] = taken
        for cut, end in ends.items():
            plan.pieces[cut].append(("train", 0, end))
        return amounts

    def _cut(self, index: int, n_bytes: int) -> tuple[int, int]:
        """Cut a document after about `n_bytes`, at a line end if one is near: chars, bytes."""
        text = next(text for number, text in enumerate(self._all()) if number == index)
        head = text.encode()[:n_bytes].decode(errors="ignore")
        line_end = head.rfind("\n", max(0, len(head) - _LINE_END)) + 1
        head = head[:line_end] if line_end else head
        return len(head), len(head.encode())

    def _all(self) -> Iterator[str]:
        return filter(None, self._read_all())

    def _read_all(self, stage: str | None = None) -> Iterator[str]:
        done, total = 0, sum(self._sizes)
        for path, size in zip(self._files, self._sizes, strict=True):
            if stage is not None:
                self._progress(stage, done, total)
            yield from self._read(path)
            done += size
        if stage is not None:
            self._progress(stage, total, total)

    def _stamp(self) -> list[tuple[int, ...]]:
        return stamps([_stat(path) for path in self._files])

    def _name(self) -> str:
        first = str(self._files[0]) if self._files else "no files"
        return f"{first} and {len(self._files) - 1} others" if len(self._files) > 1 else first


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError as error:
        raise StrawberryError(f"{path}: {error.strerror or error}") from error
