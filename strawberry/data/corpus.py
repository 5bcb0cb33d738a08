"""A corpus of files: documents, gone through again and again, divided into training and validation.

The division is over whole documents and over bytes of text, so that it is the same for every
tokenizer: documents are ranked by the digest of their content, and from the first on they go to
validation, until it has its share. The last of these is cut: its beginning stays with training. A
corpus of one document is thus simply cut, and copies of a document fall on the same side.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.data.contracts import Corpus, Progress, Split, silent
from strawberry.data.storage import Identities, stamps
from strawberry.errors import StrawberryError

_DIGEST = 16
_LINE_END = 4096  # characters back from the cut where a line's end is looked for


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which documents are validation; the one at `cut` is, from character `at` on."""

    validation: npt.NDArray[np.bool_]
    cut: int
    at: int
    summary: dict[str, Any]


class FileCorpus(Corpus):
    """The documents of some files, in the order of the files, without empty ones.

    Args:
        files: the files.
        read: the documents of a file.
        reader: a text that changes whenever `read` gives other documents of the same file.
        data_division: the share of the text that is for training, between 0 and 1.
        identities: remembers the corpus of files that have not changed, so that they need not be
            read to know it.
        progress: called while the files are gone through.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], Iterator[str]],
        *,
        reader: str,
        data_division: float,
        identities: Identities,
        progress: Progress = silent,
    ) -> None:
        self._files = list(files)
        self._read = read
        self._division = data_division
        self._progress = progress
        self._sizes = [_stat(path).st_size for path in self._files]
        self._stamps = self._stamp()
        self._known: _Plan | None = None
        note = f"corpus 2, {reader}, {data_division!r}"
        summary = identities.recall(self._files, note)
        if summary is None:
            summary = self._plan.summary
            identities.note(self._files, note, summary)
        self.fingerprint = str(summary["fingerprint"])
        self.n_documents = int(summary["n_documents"])
        self.n_empty = int(summary["n_empty"])
        self._n_bytes: dict[str, int] = summary["n_bytes"]
        if not self.n_documents:
            raise StrawberryError(f"{self._name()}: there is no text in it")

    def documents(self, split: Split) -> Iterator[str]:
        """The documents of a split; raises StrawberryError if a file changes meanwhile."""
        plan, wanted = self._plan, split == "val"
        index = -1
        for index, text in enumerate(self._all()):
            if index == plan.cut:
                part = text[plan.at :] if wanted else text[: plan.at]
                if part:
                    yield part
            elif index >= plan.validation.size or plan.validation[index] == wanted:
                yield text
        if index + 1 != plan.validation.size or self._stamp() != self._stamps:
            raise StrawberryError(f"{self._name()}: changed while it was being read; try again")

    def n_bytes(self, split: Split) -> int:
        """UTF-8 bytes in a split."""
        return self._n_bytes[split]

    @property
    def _plan(self) -> _Plan:
        if self._known is None:
            self._known = self._scan()
        return self._known

    def _scan(self) -> _Plan:
        """Go through all documents once, to know their sizes and digests."""
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
        fingerprint = hashlib.sha256(bytes(digests) + repr(self._division).encode()).hexdigest()
        summary = {"fingerprint": fingerprint, "n_documents": size.size, "n_empty": n_empty}
        if not total:
            return _Plan(np.zeros(0, np.bool_), -1, 0, {**summary, "n_bytes": {}})
        ranks = np.argsort(np.frombuffer(bytes(digests), f"S{_DIGEST}"), kind="stable")
        share = total - round(total * self._division)
        filled = np.cumsum(size[ranks])
        whole = int(np.searchsorted(filled, share, side="right"))
        validation = np.zeros(size.size, np.bool_)
        validation[ranks[:whole]] = True
        taken = int(filled[whole - 1]) if whole else 0
        cut, at = -1, 0
        if taken < share:
            cut = int(ranks[whole])
            at, kept = self._cut(cut, int(size[cut]) - (share - taken))
            taken += int(size[cut]) - kept
        summary["n_bytes"] = {"train": total - taken, "val": taken}
        return _Plan(validation, cut, at, summary)

    def _cut(self, index: int, n_bytes: int) -> tuple[int, int]:
        """Cut a document after about `n_bytes`, at a line's end if one is near: chars, bytes."""
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
