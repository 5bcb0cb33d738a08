"""Byte-level byte-pair encoding: trained by rustbpe, encoded by tiktoken, saved for `tokenizers`.

A vocabulary is a list of byte strings: the 256 single bytes, then the result of each merge, in
order. Adjacent tokens are merged if their concatenated bytes are a token, the earliest one in the
list first. The ids of special tokens follow.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.contracts.data import Progress, silent
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.documents import encodable
from strawberry.data.hub_format import to_document
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.storage import digest

PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "gpt4o": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "code": (
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+(?:\s*\n[^\S\n]*)?|\s*\n[^\S\n]*|\s+(?!\S)|\s+"
    ),
}
"""Regular expressions that split text before merging; `gpt4o` is the original encoder's.

`code` joins the end of a line with the next line's indentation, and with the punctuation before it:
`):` and an indentation are one token in most of a Python file.
"""

SPECIAL_TOKENS = ("<|eop|>", "<|eor|>", "<|eot|>", "<|sep|>", "<|call|>", "<|sink|>", "<|mask|>")
"""Tokens for end of prompt, of reasoning and of text; separator; tool call; attention sink; mask.
"""

END_OF_TEXT = "<|eot|>"
N_BYTES = 256

# Splitting at a line's end before a letter changes no id, where the pattern lets no match go over
# it: so long documents are encoded by several threads.
_SEAM = re.compile(r"\n(?=[A-Za-z])")
_SEAMED = frozenset({PATTERNS["gpt4"], PATTERNS["gpt4o"], PATTERNS["code"]})
_PIECE = 1 << 18  # characters
_TRAINING_PIECE = 1 << 16
_TRAINING_BUFFER = 512  # texts that rustbpe splits at once, in parallel


class BPETokenizer(Tokenizer):
    """Byte-level BPE.

    Args:
        tokens: bytes of each ordinary id.
        special_tokens: texts of the following ids.
        pattern: a regular expression whose matches are encoded separately; None encodes single
            bytes (then the vocabulary must be the 256 bytes).
    """

    def __init__(
        self, tokens: Sequence[bytes], special_tokens: Sequence[str], pattern: str | None
    ) -> None:
        self.tokens = list(tokens)
        self.pattern = pattern
        self.special_tokens = {text: len(tokens) + i for i, text in enumerate(special_tokens)}
        self.vocab_size = len(tokens) + len(special_tokens)
        self.eot = self.special_tokens[END_OF_TEXT]
        self.fingerprint = digest([t.hex() for t in self.tokens], list(special_tokens), pattern)
        self._all_bytes = [*self.tokens, *(text.encode() for text in special_tokens)]
        texts = sorted(special_tokens, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, texts)) + ")")

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Encode `text`; with `special`, texts of special tokens become their ids."""
        ids: list[int] = self.encode_batch([text], special)[0].tolist()
        return ids

    def encode_batch(
        self, texts: Sequence[str], special: bool = False
    ) -> list[npt.NDArray[np.uint32]]:
        """Encode each text, with one thread for each core."""
        pieces: list[str] = []
        counts = []
        for text in texts:
            before = len(pieces)
            pieces += self._pieces(encodable(text))
            counts.append(len(pieces) - before)
        if len(pieces) > 1 and self.pattern is not None:
            with ThreadPoolExecutor(_cores()) as pool:
                parts = list(pool.map(lambda piece: self._encode(piece, special), pieces))
        else:
            parts = [self._encode(piece, special) for piece in pieces]
        ids, start = [], 0
        for count in counts:
            group = parts[start : start + count]
            ids.append(group[0] if count == 1 else np.concatenate(group))
            start += count
        return ids

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Decode `ids` into UTF-8 bytes; raises ValueError for an id outside the vocabulary."""
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id {i} is outside the vocabulary of {self.vocab_size}")
        return b"".join([self._all_bytes[i] for i in ids])

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`, which the `tokenizers` library can read too."""
        document = to_document(self.tokens, list(self.special_tokens), self.pattern)
        write_atomic(path, document, parents=True)

    def _pieces(self, text: str) -> Iterator[str]:
        if self.pattern is not None and self.pattern not in _SEAMED:
            yield text
            return
        yield from _split(text, _PIECE)

    def _encode(self, text: str, special: bool) -> npt.NDArray[np.uint32]:
        if self.pattern is not None:
            return self._merge(text, special)
        if not special:
            return np.frombuffer(text.encode(), np.uint8).astype(np.uint32)
        parts: list[npt.NDArray[np.uint32]] = []
        for index, part in enumerate(self._special.split(text)):
            raw = np.frombuffer(part.encode(), np.uint8).astype(np.uint32)
            ids = np.array([self.special_tokens[part]], np.uint32) if index % 2 else raw
            parts.append(ids)
        return np.concatenate(parts)

    def _merge(self, text: str, special: bool) -> npt.NDArray[np.uint32]:
        allowed = set(self.special_tokens) if special else set()
        try:
            ids: npt.NDArray[np.uint32] = self._fast.encode_to_numpy(
                text, allowed_special=allowed, disallowed_special=()
            )
        except ValueError:
            # The regex engine gives up on a run of about a million blanks. In two halves, such a
            # run becomes other tokens than it would by the letter of the pattern, but does become.
            if len(text) < 2:
                raise
            middle = text.rfind("\n", 0, len(text) // 2) + 1 or len(text) // 2
            return np.concatenate(
                [self._merge(text[:middle], special), self._merge(text[middle:], special)]
            )
        return ids

    @cached_property
    def _fast(self) -> Any:
        import tiktoken

        return tiktoken.Encoding(
            "strawberry",
            pat_str=self.pattern or ".",
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens=self.special_tokens,
        )


def byte_tokenizer(special_tokens: Sequence[str]) -> BPETokenizer:
    """The tokenizer whose ids are UTF-8 bytes, followed by special tokens."""
    return BPETokenizer([bytes([b]) for b in range(N_BYTES)], special_tokens, None)


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    pattern: str = "gpt4",
    n_bytes: int | None = None,
    progress: Progress = silent,
) -> BPETokenizer:
    """Train a BPE with at most `vocab_size` ids, special tokens included.

    The vocabulary is smaller if the text runs out of pairs to merge. Training is deterministic.

    Args:
        texts: training texts, read once.
        vocab_size: total number of ids.
        special_tokens: texts of special tokens; must include `<|eot|>`.
        pattern: a name in `PATTERNS`, or a regular expression in Rust's syntax.
        n_bytes: bytes of all texts, for `progress`.
        progress: progress callback.

    Raises:
        StrawberryError: the vocabulary is too small, the pattern is invalid, or the special tokens
            are invalid.
    """
    check_special(special_tokens)
    check_room(vocab_size, special_tokens)
    expression = split_pattern(pattern)
    import rustbpe

    def fed() -> Iterator[str]:
        done = 0
        for text in texts:
            progress("counting words", done, n_bytes)
            for piece in _split(encodable(text), _TRAINING_PIECE, force=True):
                yield piece
                done += len(piece.encode())
        progress("merging", done, None)

    learner = rustbpe.Tokenizer()
    size = vocab_size - len(special_tokens)
    learner.train_from_iterator(fed(), size, buffer_size=_TRAINING_BUFFER, pattern=expression)
    ranks = sorted(learner.get_mergeable_ranks(), key=lambda item: int(item[1]))
    # Two merges may make the same bytes; the earlier one keeps them.
    return BPETokenizer(list(dict.fromkeys(bytes(t) for t, _ in ranks)), special_tokens, expression)


def split_pattern(pattern: str) -> str:
    """The regular expression of a named pattern, or the given regular expression.

    Raises:
        StrawberryError: invalid, or it doesn't match every character, so that text would be lost.
    """
    if pattern in PATTERNS:
        return PATTERNS[pattern]
    import tiktoken

    names = ", ".join(PATTERNS)
    try:
        single = {bytes([b]): b for b in range(N_BYTES)}
        probe = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=single,
                                  special_tokens={})  # fmt: skip
        text = "It's 12345 o'clock, \t\n\n  caf\u00e9 \u4e16\u754c -- (x_1 != 0)\r\n "
        whole = bytes(probe.encode_ordinary(text)) == text.encode()
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise StrawberryError(
            f"{pattern!r} is neither one of {names} nor a regular expression: {reason}"
        ) from error
    if not whole:
        raise StrawberryError(
            f"{pattern!r} is neither one of {names} nor a pattern that matches all text; "
            "unmatched text would be lost"
        )
    return pattern


def check_special(special_tokens: Sequence[str]) -> None:
    """Raise StrawberryError for invalid special tokens."""
    for text in special_tokens:
        if not text or re.search(r"\s", text):
            raise StrawberryError(
                f"special token {text!r} must not be empty, and must contain no whitespace"
            )
    if len(set(special_tokens)) < len(special_tokens):
        raise StrawberryError("duplicate special token")
    if END_OF_TEXT not in special_tokens:
        raise StrawberryError(
            f"{END_OF_TEXT} must be among the special tokens; it marks the end of a document"
        )


def check_room(vocab_size: int, special_tokens: Sequence[str]) -> None:
    """Raise StrawberryError if a vocabulary is too small for the bytes and the special tokens."""
    least = N_BYTES + len(special_tokens)
    if vocab_size < least:
        raise StrawberryError(
            f"vocab_size must be at least {least} ({N_BYTES} bytes and "
            f"{len(special_tokens)} special tokens), got {vocab_size}"
        )


def source_digest() -> str:
    """Versions on which a trained vocabulary depends, apart from its text and settings."""
    from importlib.metadata import version

    settings = (_SEAM.pattern, _TRAINING_PIECE, version("rustbpe"))
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def _split(text: str, size: int, force: bool = False) -> Iterator[str]:
    """Cut text at word boundaries into pieces of about `size`; with `force`, at most twice that."""
    start = 0
    while len(text) - start > size:
        seam = _SEAM.search(text, start + size, start + 2 * size if force else len(text))
        if seam is None and not force:
            break
        end = seam.end() if seam is not None else min(start + 2 * size, len(text))
        yield text[start:end]
        start = end
    if start < len(text) or not start:
        yield text[start:]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
