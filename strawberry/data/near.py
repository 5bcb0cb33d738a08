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
from strawberry.data.runs import BASE, MOST, NEAR, PIECE, RUN, Sought, runs

LONG: Final = 40
"""Number of items in a run without word identities."""
MARKS: Final = 14
"""Minimum number of marks in such a run; fewer are not distinctive."""
WINDOW: Final = 96
"""Words and marks of a window."""
WINDOWS: Final = 256
VERSION: Final = 1
"""Version of the search, for cached results."""
Words = npt.NDArray[np.uint64]
_BLANK, _LETTER, _MARK = range(3)
_PLACES: Final = 64
"""Places of a word that have a factor of their own; longer ones begin again."""


class Reader:
    """Converts ids to words, with tables of a tokenizer's bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        texts = [
            b" " if number == tokenizer.eot else tokenizer.decode_bytes([number])
            for number in range(tokenizer.vocab_size)
        ]
        self._lengths = np.array([len(text) for text in texts], np.int32)
        self._begins = np.cumsum(self._lengths, dtype=np.int32) - self._lengths
        self._bytes = np.frombuffer(b"".join(texts).lower(), np.uint8)
        kind = np.full(256, _MARK, np.uint8)
        kind[:33] = _BLANK
        kind[[*b"abcdefghijklmnopqrstuvwxyz0123456789_", *range(128, 256)]] = _LETTER
        self._kind = kind
        powers = np.cumprod(np.full(_PLACES, BASE, np.uint64))
        terms = powers[:, None] * np.arange(1, 257, dtype=np.uint64)
        terms[:, kind == _BLANK] = 0
        self._terms = terms.ravel()  # of each byte, at each place of a word

    def words(self, ids: npt.NDArray[Any]) -> tuple[Words, npt.NDArray[np.bool_]]:
        """A number for each word and mark of these ids' text, and a mask of the marks."""
        lengths = self._lengths[ids]
        ends = np.cumsum(lengths, dtype=np.int32)
        every = np.arange(int(ends[-1]) if ends.size else 0, dtype=np.int32)
        text = self._bytes[every + np.repeat(self._begins[ids] - ends + lengths, lengths)]
        kind = self._kind[text]
        begins = kind == _MARK
        begins[1:] |= (kind[1:] == _LETTER) & (kind[:-1] != _LETTER)
        begins[:1] |= kind[:1] == _LETTER
        starts = np.flatnonzero(begins).astype(np.int32)
        if not starts.size:
            return np.zeros(0, np.uint64), np.zeros(0, bool)
        first = int(starts[0])
        sizes = np.diff(starts, append=np.int32(every.size))
        within = every[first:] - np.repeat(starts, sizes)
        terms = self._terms[within % _PLACES * 256 + text[first:]]
        hashes = np.add.reduceat(terms, starts - first)
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
    forms = list(zip(*wanted, strict=True))
    sought = [Sought(rows) for rows in forms]
    seen = 0
    for ids in _pieces(train):
        for hashes, of_form in zip(_both(*reader.words(ids)), sought, strict=True):
            of_form.see(hashes)
        seen += ids.size
        if seen >= MOST:
            break
    near = [
        any(
            row.size >= WINDOW // 4 and of_form.share(row) >= NEAR
            for row, of_form in zip(rows, sought, strict=True)
        )
        for rows in wanted
    ]
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
        for at in range(0, max(1, part.size), PIECE):
            yield part[at : at + PIECE + LONG * 16]
