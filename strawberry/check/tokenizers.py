"""Checks of tokenizers: text survives, and saving, batching and special tokens agree."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from strawberry.check.outcome import Finding
from strawberry.check.subject import Subject
from strawberry.contracts.data import Corpus, Split, TokenizerSource
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.opening import data_site
from strawberry.data.tokenizer import load_tokenizer

TEXTS: Final = (
    "",
    " ",
    "a",
    "How many r's are in strawberry?",
    "  two  spaces,\ttabs\t\tand\r\nline ends\n\n\n",
    "def f(x):\n    return x ** 2  # squares\n",
    "Größe, naïve, Ελληνικά, русский, עברית, العربية, हिन्दी, 日本語, 한국어",
    "\N{STRAWBERRY}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER} e\N{COMBINING ACUTE ACCENT}",
    "\x00\x1b[0m\x7f\ufeff\ufffd\u2028",
    "0123456789" * 20,
    "<|endoftext|> <|eot|> <s> [PAD] </s>",
)
"""Difficult texts: empty, blank, many scripts, control characters, text of special tokens."""


class _Sample(Corpus):
    """A few documents in memory."""

    def __init__(self) -> None:
        self._documents = [
            *TEXTS,
            *(f"{n} strawberries are {n} berries.\n" * 20 for n in range(99)),
        ]
        self.n_documents = len(self._documents)
        self.fingerprint = hashlib.sha256("\0".join(self._documents).encode()).hexdigest()

    def documents(self, split: Split) -> Iterator[str]:
        return iter(self._documents if split == "train" else self._documents[:11])

    def n_bytes(self, split: Split) -> int:
        return sum(len(text.encode()) for text in self.documents(split))


def round_trip(subject: Subject) -> str:
    """Is every text restored from its ids, byte for byte?"""
    tokenizer = _open(subject)
    for text in TEXTS:
        back = tokenizer.decode(tokenizer.encode(text))
        if back != text:
            raise Finding(f"{text!r} becomes {back!r} after encoding and decoding")
    return f"{len(TEXTS)} texts of several scripts"


def ids(subject: Subject) -> str:
    """Are all ids within the vocabulary, and is the vocabulary as requested?"""
    tokenizer = _open(subject)
    asked = subject.recipe.model.vocab_size
    if not 0 < tokenizer.vocab_size <= asked:
        raise Finding(f"its vocabulary has {tokenizer.vocab_size} ids, but the model has {asked}")
    for text in TEXTS:
        outside = [i for i in tokenizer.encode(text) if not 0 <= i < tokenizer.vocab_size]
        if outside:
            raise Finding(
                f"{text!r} has id {outside[0]}, but the vocabulary has {tokenizer.vocab_size} ids"
            )
    return f"{tokenizer.vocab_size} of {asked} ids"


def special(subject: Subject) -> str:
    """Does text become special tokens only on request?"""
    tokenizer = _open(subject)
    if tokenizer.eot not in tokenizer.special_tokens.values():
        raise Finding(f"eot is id {tokenizer.eot}, which is not one of its special tokens")
    for text, number in tokenizer.special_tokens.items():
        if number in tokenizer.encode(f"a{text}b"):
            raise Finding(f"plain text {text!r} becomes the special token {number}")
        if tokenizer.encode(f"a{text}b", special=True).count(number) != 1:
            raise Finding(f"with special tokens allowed, {text!r} does not become id {number}")
        if tokenizer.decode([number]) != text:
            raise Finding(
                f"id {number} decodes to {tokenizer.decode([number])!r}, expected {text!r}"
            )
    return ", ".join(tokenizer.special_tokens)


def pieces(subject: Subject) -> str:
    """Do batches encode like single texts, and do single ids decode to parts of the whole?"""
    tokenizer = _open(subject)
    for text, together in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
        alone = tokenizer.encode(text)
        if together.tolist() != alone:
            raise Finding(f"{text!r} has other ids in a batch than alone")
        parts = b"".join(tokenizer.decode_bytes([number]) for number in alone)
        if parts != tokenizer.decode_bytes(alone):
            raise Finding(f"the ids of {text!r} decode one by one to {parts!r}")
    return f"{len(TEXTS)} texts"


def saved(subject: Subject) -> str:
    """Is it the same after saving and loading, and when it is built again?"""
    tokenizer = _open(subject)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        tokenizer.save(path)
        again = _source(subject).load(path) or load_tokenizer(path)
        _same(tokenizer, again, "loaded from its file")
        _same(tokenizer, _open(subject), "built again from the same text")
        return f"{path.stat().st_size:,} bytes"


def _same(first: Tokenizer, second: Tokenizer, how: str) -> None:
    for name in ("vocab_size", "special_tokens", "eot", "fingerprint"):
        if getattr(first, name) != getattr(second, name):
            raise Finding(
                f"{how}, its {name} is {getattr(second, name)!r}, expected {getattr(first, name)!r}"
            )
    for text in TEXTS:
        if first.encode(text) != second.encode(text):
            raise Finding(f"{how}, {text!r} has other ids")


def _source(subject: Subject, cache: Path = Path()) -> TokenizerSource:
    """The source, which keeps what it derives in `cache`."""
    site = replace(data_site(subject.recipe, cache=cache), tokenizer=lambda _: _open(subject))
    source: TokenizerSource = subject.recipe.tokenizer.construct(site, contract=TokenizerSource)
    return source


def _open(subject: Subject) -> Tokenizer:
    """The tokenizer, built from the sample without the cache."""
    with tempfile.TemporaryDirectory() as folder:
        return _source(subject, Path(folder)).open(_Sample())
