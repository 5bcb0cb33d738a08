"""Tokenizers from files: ours, by tiktoken; any other that `tokenizers` can read, by that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.data.bpe import END_OF_TEXT, BPETokenizer
from strawberry.data.contracts import Tokenizer
from strawberry.data.documents import encodable
from strawberry.data.hub_format import from_document
from strawberry.data.reading import read_bytes, refuse_pickle
from strawberry.data.storage import digest, write_file
from strawberry.errors import StrawberryError

_ENDS = (END_OF_TEXT, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>")

INSTEAD = (
    "leave the path out to learn a tokenizer of the data, or make a tokenizer.json with "
    "`strawberry tokenizer train`, or of an encoder of the seed project with `strawberry import`"
)
"""What to do about a pickled encoder."""


class HubTokenizer(Tokenizer):
    """A `tokenizer.json` of any kind, encoded by the `tokenizers` library.

    Args:
        document: the content of the file.
        name: how to name it in messages.
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
        found = [self._fast.token_to_id(end) for end in _ENDS]
        ends = [int(i) for i in found if i is not None]
        if not ends:
            raise StrawberryError(f"{name}: no token that ends a text (one of {', '.join(_ENDS)})")
        self.eot = ends[0]
        self.vocab_size = 1 + max(self._fast.get_vocab(with_added_tokens=True).values())
        self.fingerprint = digest(json.loads(document))

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of `text`; with `special`, the texts of special tokens become their ids."""
        encoder = self._fast if special else self._plain
        return list(encoder.encode(encodable(text), add_special_tokens=False).ids)

    def encode_batch(
        self, texts: Sequence[str], special: bool = False
    ) -> list[npt.NDArray[np.uint32]]:
        """The ids of each text, in parallel."""
        encoder = self._fast if special else self._plain
        encoded = encoder.encode_batch_fast(
            [encodable(text) for text in texts], add_special_tokens=False
        )
        return [np.array(one.ids, dtype=np.uint32) for one in encoded]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The text of `ids` as bytes; a part of a character becomes the replacement character."""
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id {i} is outside of a vocabulary of {self.vocab_size}")
        return str(self._fast.decode(list(ids), skip_special_tokens=False)).encode()

    def save(self, path: Path) -> None:
        """Write the document that it came from."""
        write_file(path, self._document.encode())


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`.

    Raises:
        StrawberryError: it is not there, or not such a file; pickles are refused by name.
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
