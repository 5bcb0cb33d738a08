"""Tokenizers from files: Strawberry's own with tiktoken, others with the `tokenizers` library."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.bpe import END_OF_TEXT, BPETokenizer
from strawberry.data.documents import encodable
from strawberry.data.hub_format import bytes_of, from_document
from strawberry.data.reading import read_bytes, refuse_pickle
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.storage import digest

_ENDS = (END_OF_TEXT, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>")

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_JOINING = ("Fuse", "ByteLevel")
"""Decoders that process the text of all ids together."""

INSTEAD = (
    "leave the path out to train a tokenizer on the data; or create a tokenizer.json with "
    "`strawberry tokenizer train`, or from an encoder of the original project with "
    "`strawberry original import`"
)
"""Advice about a pickled encoder."""


class HubTokenizer(Tokenizer):
    """A `tokenizer.json` of any kind, encoded by the `tokenizers` library.

    Args:
        document: the content of the file.
        name: its name in messages.
    """

    def __init__(self, document: str, name: str) -> None:
        import tokenizers

        try:
            self._fast: Any = tokenizers.Tokenizer.from_str(document)
            self._plain: Any = tokenizers.Tokenizer.from_str(document)
        except Exception as error:  # the library raises bare Exceptions
            raise StrawberryError(f"{name}: not a tokenizer.json: {error}") from error
        self._plain.encode_special_tokens = True  # that is: as if they were plain text
        self._document = document
        added = self._fast.get_added_tokens_decoder().items()
        self.special_tokens = {token.content: i for i, token in added if token.special}
        known_ends = [self._fast.token_to_id(end) for end in _ENDS]
        ends = [int(i) for i in known_ends if i is not None]
        if not ends:
            raise StrawberryError(f"{name}: has no end-of-text token (one of {', '.join(_ENDS)})")
        self.eot = ends[0]
        ids = set(self._fast.get_vocab(with_added_tokens=True).values())
        self.vocab_size = 1 + max(ids)
        self.gaps = tuple(i for i in range(self.vocab_size) if i not in ids)
        self.fingerprint = digest(json.loads(document))
        self.lossless = self._gives_back()

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Encode `text`; with `special`, texts of special tokens become their ids."""
        encoder = self._fast if special else self._plain
        return list(encoder.encode(encodable(text), add_special_tokens=False).ids)

    def encode_batch(
        self, texts: Sequence[str], special: bool = False
    ) -> list[npt.NDArray[np.uint32]]:
        """Encode each text, in parallel."""
        encoder = self._fast if special else self._plain
        encoded = encoder.encode_batch_fast(
            [encodable(text) for text in texts], add_special_tokens=False
        )
        return [np.array(one.ids, dtype=np.uint32) for one in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode `ids` together, with the library."""
        self._check(ids)
        return self._text(ids)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The UTF-8 bytes that `ids` add to a text; raises ValueError as `decode` does."""
        self._check(ids)
        return b"".join(map(self._bytes_of, ids))

    def unsettled(self, ids: Sequence[int]) -> int:
        """Keep single bytes at the end undecided: a further invalid byte would change them."""
        if self._replaced and self._may_be_replaced(self._text(ids)):
            return len(ids)
        count = 0
        while count < len(ids) and ids[-1 - count] in self._single:
            count += 1
        return count

    def save(self, path: Path) -> None:
        """Write the document that it was loaded from."""
        write_atomic(path, self._document, parents=True)

    def _gives_back(self) -> bool:
        """Return whether the document has nothing that changes a text."""
        value = json.loads(self._document)
        splitters = list(_flat(value.get("pre_tokenizer") or {}, "pretokenizers"))
        changed = any(splitter.get("add_prefix_space") for splitter in splitters)
        plain = value.get("normalizer") is None and not changed
        return plain and self._decoders == {"ByteLevel"}

    def _check(self, ids: Sequence[int]) -> None:
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id {i} is outside the vocabulary of {self.vocab_size}")

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._fast.decode(list(ids), skip_special_tokens=False)) if ids else ""

    def _may_be_replaced(self, text: str) -> bool:
        return any(
            old is None or any(text.endswith(old[:n]) for n in range(1, len(old)))
            for old in self._replaced
        )

    @functools.cached_property
    def _steps(self) -> tuple[dict[str, Any], ...]:
        """The decoders that the document names, in order."""
        return tuple(_flat(json.loads(self._document).get("decoder") or {}))

    @functools.cached_property
    def _decoders(self) -> frozenset[str]:
        """The types of all decoders."""
        return frozenset(str(step.get("type")) for step in self._steps)

    @functools.cached_property
    def _replaced(self) -> tuple[str | None, ...]:
        """Strings that decoders replace after the texts of ids are joined; None for a pattern."""
        types = [step.get("type") for step in self._steps]
        joined = min((types.index(one) for one in _JOINING if one in types), default=len(types))
        later = [step for step in self._steps[joined:] if step.get("type") == "Replace"]
        return tuple(step["pattern"].get("String") for step in later)

    @functools.cached_property
    def _single(self) -> dict[int, bytes]:
        """The ids that stand for a single byte each."""
        if "ByteFallback" not in self._decoders:
            return {}
        vocabulary = self._fast.get_vocab(with_added_tokens=True).items()
        return {i: bytes.fromhex(text[3:5]) for text, i in vocabulary if _BYTE.fullmatch(text)}

    @functools.cached_property
    def _anchor(self) -> list[int]:
        """An id of letters only, which shows what a further id adds to a text."""
        plain = (i for i in range(self.vocab_size) if self._text([i]).isalpha())
        return list(itertools.islice(plain, 1))

    def _bytes_of(self, i: int) -> bytes:
        if i in self._single:
            return self._single[i]
        if "ByteLevel" in self._decoders:
            token = self._fast.id_to_token(i) or ""
            symbols = bytes_of(token)
            return token.encode() if symbols is None else symbols
        before, both = self._text(self._anchor), self._text([*self._anchor, i])
        return both.removeprefix(before).encode()


def _flat(part: dict[str, Any], of: str = "decoders") -> Iterator[dict[str, Any]]:
    """A part of a document, or those of a sequence, at any depth."""
    if of not in part:
        yield part
    for one in part.get(of, ()):
        yield from _flat(one, of)


def tokenizer_beside(file: Path) -> Tokenizer | None:
    """The `tokenizer.json` in the folder of a file of ids, if present."""
    beside = file.parent / "tokenizer.json"
    return load_tokenizer(beside) if beside.exists() else None


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer of a `tokenizer.json`.

    Raises:
        StrawberryError: it does not exist or is invalid; pickles are refused by name.
    """
    if path.is_dir():
        path = path / "tokenizer.json"
    refuse_pickle(path, INSTEAD)
    raw = read_bytes(path)
    try:
        document = raw.decode()
        value = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise StrawberryError(f"{path}: not a tokenizer.json: {error}") from error
    ours = from_document(value)
    if ours is None:
        return HubTokenizer(document, str(path))
    tokens, special_tokens, pattern = ours
    if END_OF_TEXT not in special_tokens:
        return HubTokenizer(document, str(path))
    return BPETokenizer(tokens, special_tokens, pattern)
