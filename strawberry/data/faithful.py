"""Compare a split's ids with its documents: whether ids represent the text.

Bits per byte are meaningful only if a text's ids can be decoded into it. The beginning of the split
is compared, in bytes, without the ends of documents.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.storage import cache_folder, digest

if TYPE_CHECKING:
    from strawberry.contracts.data import Dataset
    from strawberry.contracts.tokenizer import Tokenizer

MOST: Final = 32_000_000
"""Bytes of the text that are compared."""
WINDOW: Final = 48
"""Bytes of a piece that is looked for where the two are not the same."""
WINDOWS: Final = 512
VERSION: Final = 1
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Share of a text that its ids give back.

    Attributes:
        text: bytes of the text that were compared.
        decoded: bytes that its ids stand for.
        kept: the share of the text's pieces that stand there; 1 if both are the same.
        lost: the beginning of the first piece that doesn't, for messages.
    """

    text: int
    decoded: int
    kept: float
    lost: str = ""

    @property
    def exact(self) -> bool:
        """True if ids give back the text verbatim."""
        return self.kept == 1.0 and self.text == self.decoded


class Table:
    """The bytes of each id by itself, asked of the tokenizer that a run has."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eot = tokenizer.eot
        self.bytes = [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
        self.bytes[self.eot] = b""
        self.lengths = np.array([len(one) for one in self.bytes], np.int64)
        self.digest = sha256(b"\0".join(self.bytes)).hexdigest()

    def count(self, ids: npt.NDArray[Any]) -> int:
        """Bytes that these ids stand for, negative ones aside."""
        return int(self.lengths[ids[ids >= 0]].sum())

    def decode(self, ids: npt.NDArray[Any]) -> bytes:
        """The bytes of these ids, ends of documents left out."""
        return b"".join(map(self.bytes.__getitem__, ids.tolist()))


def known_fidelity(dataset: Dataset, table: Table) -> Fidelity | None:
    """Agreement of the ids of `val` with its text; None without ids or text.

    It is kept in the cache folder by the ids themselves, by what they stand for, and by the corpus.
    """
    arrays, tokenizer = dataset.arrays("val"), dataset.tokenizer
    if arrays is None or tokenizer is None:
        return None
    pieces, checksum = list(_pieces(arrays, table)), sha256()
    for piece in pieces:
        checksum.update(piece.astype(np.int64).tobytes())
    key = digest(dataset.fingerprint, checksum.hexdigest(), table.digest, VERSION)
    file = cache_folder() / "fidelity" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Fidelity(**json.loads(file.read_text()))
    texts = dataset.texts("val")
    if texts is None:
        return None
    decoded = b"".join(map(table.decode, pieces))
    fidelity = compared(_text(texts), decoded, _end(tokenizer))
    with contextlib.suppress(StrawberryError):  # a cache that can't be written is none
        write_atomic(file, json.dumps(asdict(fidelity)), parents=True)
    return fidelity


def compared(text: bytes, decoded: bytes, special: bytes = b"") -> Fidelity:
    """A text against what its ids stand for; `special` in it may have ended a document."""
    if special and text[:MOST] != decoded[:MOST]:
        text, decoded = text.replace(special, b""), decoded.replace(special, b"")
    text, decoded = text[:MOST], decoded[:MOST]
    if text == decoded:
        return Fidelity(len(text), len(decoded), 1.0)
    begins = np.unique(np.linspace(0, max(0, len(text) - WINDOW), WINDOWS).astype(int)).tolist()
    pieces = [text[at : at + WINDOW] for at in begins]
    missing = [piece for piece in pieces if piece not in decoded]
    lost = missing[0].decode(errors="ignore") if missing else ""
    return Fidelity(len(text), len(decoded), 1 - len(missing) / len(pieces), lost)


def _pieces(arrays: Sequence[npt.NDArray[Any]], table: Table) -> Iterator[npt.NDArray[Any]]:
    """As many ids of a split as are compared."""
    size = 0
    for piece in (part[at : at + _PIECE] for part in arrays for at in range(0, part.size, _PIECE)):
        if size >= MOST:
            return
        yield piece
        size += table.count(piece)


def _text(texts: Iterator[str]) -> bytes:
    """As much of a text as is compared."""
    parts, size = list[bytes](), 0
    for document in texts:
        parts.append(document.encode(errors="replace"))
        size += len(parts[-1])
        if size >= MOST:
            break
    return b"".join(parts)


def _end(tokenizer: Tokenizer) -> bytes:
    """The text of the token that ends a document."""
    ends = (text for text, i in tokenizer.special_tokens.items() if i == tokenizer.eot)
    return next(ends, "").encode()
