"""Find validation text that is in the training text in an altered form.

Text is split into words in lower case and punctuation marks, without whitespace. A window of
validation text is a near copy if most of its runs of `RUN` such items occur in the training text.
That ignores whitespace, line ends and case. It is also a near copy if most of its runs of `LONG`
items do after every word has become "a word", as if all names in a program had been changed
(compare the parameterised matching of Baker 1993). There only marks are compared, and runs with few
marks are left out. NumPy does all of this on bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.runs import BASE, MOST, NEAR, RUN, runs

LONG: Final = 40
"""Number of items in a run without word identities."""
MARKS: Final = 14
"""Minimum number of marks in such a run; fewer are not distinctive."""
WINDOW: Final = 96
"""Words and marks of a window."""
WINDOWS: Final = 256
VERSION: Final = 1
"""Version of the search, for cached results."""
_PIECE: Final = 1 << 19

Words = npt.NDArray[np.uint64]
_BLANK, _LETTER, _MARK = range(3)


class Reader:
    """Converts ids to words, with tables of a tokenizer's bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        texts = [
            b" " if number == tokenizer.eot else tokenizer.decode_bytes([number])
            for number in range(tokenizer.vocab_size)
        ]
        self._lengths = np.array([len(text) for text in texts], np.int64)
        self._begins = np.concatenate([[0], np.cumsum(self._lengths)[:-1]])
        self._bytes = np.frombuffer(b"".join(texts).lower(), np.uint8)
        kind = np.full(256, _MARK, np.uint8)
        kind[:33] = _BLANK
        kind[[*b"abcdefghijklmnopqrstuvwxyz0123456789_", *range(128, 256)]] = _LETTER
        self._kind = kind
        self._powers = np.cumprod(np.full(64, BASE, np.uint64))

    def words(self, ids: npt.NDArray[Any]) -> tuple[Words, npt.NDArray[np.bool_]]:
        """A number for each word and mark of these ids' text, and a mask of the marks."""
        lengths = self._lengths[ids]
        total = int(lengths.sum())
        places = np.repeat(self._begins[ids] - np.cumsum(lengths) + lengths, lengths)
        text = self._bytes[places + np.arange(total)]
        kind = self._kind[text]
        before = np.concatenate([np.zeros(1, np.uint8), kind[:-1]])
        starts = np.flatnonzero((kind == _MARK) | ((kind == _LETTER) & (before != _LETTER)))
        if not starts.size:
            return np.zeros(0, np.uint64), np.zeros(0, bool)
        within = np.arange(total) - starts[np.searchsorted(starts, np.arange(total), "right") - 1]
        terms = (text.astype(np.uint64) + np.uint64(1)) * self._powers[within % 64]
        terms[kind == _BLANK] = 0
        hashes = np.add.reduceat(terms, starts)
        return hashes ^ (hashes >> np.uint64(29)), kind[starts] == _MARK


def near_copies(
    tokenizer: Tokenizer, train: Sequence[npt.NDArray[Any]], val: Sequence[npt.NDArray[Any]]
) -> float | None:
    """Fraction of validation windows that are near copies; None without windows."""
    reader = Reader(tokenizer)
    windows = list(_windows(reader, val))
    if not windows:
        return None
    wanted = [_both(words, marks) for words, marks in windows]
    shares = []
    for form in range(2):
        rows = [pair[form] for pair in wanted]
        known = np.unique(np.concatenate(rows))
        shares.append((rows, known, np.zeros(known.size, bool)))
    seen = 0
    for ids in _pieces(train):
        for runs_of, (_, known, found) in zip(_both(*reader.words(ids)), shares, strict=True):
            if known.size:
                at = np.searchsorted(known, runs_of).clip(max=known.size - 1)
                found[at[known[at] == runs_of]] = True
        seen += ids.size
        if seen >= MOST:
            break
    near = [False] * len(windows)
    for rows, known, found in shares:
        for number, row in enumerate(rows):
            if row.size >= WINDOW // 4 and found[np.searchsorted(known, row)].mean() >= NEAR:
                near[number] = True
    return float(np.mean(near))


def _both(words: Words, marks: npt.NDArray[np.bool_]) -> tuple[Words, Words]:
    """Hashes of runs with word identities, and of runs without."""
    renamed = runs(np.where(marks, words, np.uint64(1)), LONG)
    counts = np.cumsum(np.concatenate([[0], marks]))
    telling = counts[LONG:] - counts[:-LONG] if len(words) >= LONG else counts[:0]
    return runs(words, RUN), renamed[telling >= MARKS]


def _windows(
    reader: Reader, parts: Sequence[npt.NDArray[Any]]
) -> Iterator[tuple[Words, npt.NDArray[np.bool_]]]:
    """Windows of the text, spread evenly."""
    every = [(part, at) for part in parts for at in range(0, max(1, part.size - 4), WINDOW * 4)]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(WINDOWS, len(every))).astype(int))
    for index in chosen.tolist():
        part, at = every[index]
        words, marks = reader.words(part[at : at + WINDOW * 16])  # of bytes one by one, too
        if words.size >= WINDOW:
            yield words[:WINDOW], marks[:WINDOW]


def _pieces(parts: Sequence[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
    """The ids in pieces whose overlap exceeds most of the longest runs."""
    for part in parts:
        for at in range(0, max(1, part.size), _PIECE):
            yield part[at : at + _PIECE + LONG * 16]
