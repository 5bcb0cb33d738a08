"""Contract of a tokenizer, and checks of its ids: whole numbers within its vocabulary."""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from strawberry.errors import PluginError


class Tokenizer(abc.ABC):
    """Converts text to ids and back. Ids run from 0 to `vocab_size - 1`.

    Attributes:
        vocab_size: number of ids, special tokens included.
        special_tokens: text of each special token, and its id.
        eot: the id that ends each document; it also starts a generation without a prompt.
        fingerprint: hexadecimal digest of everything that determines the ids.
        gaps: unused ids between 0 and `vocab_size - 1`; they are never generated.
        lossless: True if the bytes of a text's ids are that text. If False, bits per byte refer to
            another text, which runs report as declared.
        use: its name in the recipe, for messages; set when it is opened.
    """

    vocab_size: int
    special_tokens: dict[str, int]
    eot: int
    fingerprint: str
    gaps: tuple[int, ...] = ()
    lossless: bool = True
    use: str = ""

    @abc.abstractmethod
    def encode(self, text: str, special: bool = False) -> list[int]:
        """Encode `text`; with `special`, texts of special tokens become their ids."""

    @abc.abstractmethod
    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The UTF-8 bytes that `ids` add to a text.

        One id may be a part of a character.

        Raises:
            ValueError: an id is not in the vocabulary.
        """

    @abc.abstractmethod
    def save(self, path: Path) -> None:
        """Write it to `path` (a `tokenizer.json`), atomically."""

    def decode(self, ids: Sequence[int]) -> str:
        """Decode `ids`; invalid UTF-8 becomes the replacement character.

        Override it if text is more than the bytes of its ids, for example if a leading space is
        dropped.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def unsettled(self, ids: Sequence[int]) -> int:
        """Number of last ids whose text may change when others follow.

        By default these are replacement characters at the end of a text; override it if there are
        more.
        """
        return 0

    @functools.cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Number of UTF-8 bytes of text of each id, (vocab_size,); 0 for `eot`."""
        lengths = np.array([len(self.decode_bytes([i])) for i in range(self.vocab_size)], np.int64)
        lengths[self.eot] = 0
        return lengths

    def encode_batch(
        self, texts: Sequence[str], special: bool = False
    ) -> list[npt.NDArray[np.uint32]]:
        """Encode each text; override it if threads help."""
        return [checked_ids(self.encode(text, special), self) for text in texts]


def checked_ids(ids: Any, tokenizer: Tokenizer) -> npt.NDArray[np.uint32]:
    """The ids of a text; raises PluginError, which names the tokenizer, if they are invalid."""
    array = np.asarray(ids)
    if not array.size:
        return np.zeros(0, np.uint32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        what = f"{array.dtype}, such as {array.flat[0]!s}"
        raise PluginError(f"{_name(tokenizer)}: ids must be whole numbers, got {what}")
    for i in (int(array.min()), int(array.max())):
        if not 0 <= i < tokenizer.vocab_size:
            raise PluginError(
                f"{_name(tokenizer)}: returned id {i}, outside its vocabulary of "
                f"{tokenizer.vocab_size}"
            )
    return array.astype(np.uint32, copy=False)


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raises PluginError unless its vocabulary has a size, and its `eot` is in it."""
    size, eot = tokenizer.vocab_size, tokenizer.eot
    for name, value in (("vocab_size", size), ("eot", eot)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise PluginError(f"{_name(tokenizer)}: {name} must be a whole number, got {value!r}")
    if not 0 <= eot < size:
        raise PluginError(f"{_name(tokenizer)}: eot must be below {size}, got {eot}")


def _name(tokenizer: Tokenizer) -> str:
    return f"tokenizer {tokenizer.use or type(tokenizer).__qualname__}"
