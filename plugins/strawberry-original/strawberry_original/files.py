"""Convert the original project's pickled encoders and data sets.

- An encoder is {pattern, special: text -> id, vocab: id -> bytes}. The original merges the leftmost
  pair that is a token; Strawberry merges the pair that was learned first. Both decode alike, but
  text may become other tokens than the original's.
- A data set is {dataset: a list of ids for each document}, ends of documents included; an early
  version also had train_toks and val_toks.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from strawberry.contracts import Ids
from strawberry.data import BPETokenizer, TokenWriter, check_special, split_pattern
from strawberry.errors import StrawberryError
from strawberry.files import new_folder
from strawberry_original.pickled import load_plain

TOKENS, TOKENIZER = "tokens.tok", "tokenizer.json"
DATASET = {"dataset", "train_toks", "val_toks"}
UNUSED = b"\xff\xfe unused %d"
"""Bytes of an unused id: they are not UTF-8, so no text becomes this id."""


def is_encoder(value: Any) -> bool:
    """Return whether plain data is an encoder of the original project."""
    return isinstance(value, dict) and value.keys() == {"pattern", "special", "vocab"}


def is_dataset(value: Any) -> bool:
    """Return whether plain data is a data set of the original project."""
    return isinstance(value, dict) and {"dataset"} <= value.keys() <= DATASET


def load_encoder(path: Path) -> BPETokenizer:
    """The tokenizer of an encoder file; raises StrawberryError if it is invalid."""
    value = load_plain(path)
    if not is_encoder(value):
        raise StrawberryError(f"{path}: not an encoder of the original project")
    return encoder_of(value, path)


def encoder_of(value: dict[str, Any], path: Path) -> BPETokenizer:
    """The tokenizer of an encoder's plain data, from the file `path`."""
    pattern, special, vocab = value["pattern"], value["special"], value["vocab"]
    if not isinstance(vocab, dict) or not isinstance(special, dict):
        raise StrawberryError(f"{path}: vocabulary and special tokens must be mappings")
    tokens = [vocab.get(index) for index in range(len(vocab))]
    if tokens[:256] != [bytes([byte]) for byte in range(256)]:
        raise StrawberryError(f"{path}: its vocabulary must start with the 256 bytes")
    for index, token in enumerate(tokens):
        if not isinstance(token, bytes) or not token:
            raise StrawberryError(f"{path}: id {index} has no bytes")
    texts = sorted(special, key=lambda text: (str(type(special[text])), special[text]))
    if [special[text] for text in texts] != list(range(len(vocab), len(vocab) + len(special))):
        raise StrawberryError(f"{path}: the ids of special tokens must follow the vocabulary")
    if not isinstance(pattern, str) or not all(isinstance(text, str) for text in texts):
        raise StrawberryError(f"{path}: pattern and special tokens must be strings")
    # Two merges may make the same bytes; the original encodes to the later one alone.
    last = {token: index for index, token in enumerate(tokens)}
    once = [t if last[t] == index else UNUSED % index for index, t in enumerate(tokens) if t]
    try:
        check_special(texts)
        return BPETokenizer(once, texts, split_pattern(pattern))
    except StrawberryError as error:
        raise StrawberryError(f"{path}: {error}") from error


def write_dataset(
    value: dict[str, Any], path: Path, out: Path, tokenizer: BPETokenizer | None
) -> int:
    """Write the data set of `path` into the new folder `out`; returns its number of tokens.

    The folder has `tokens.tok`, and `tokenizer.json` if one is given. Documents are ordered by a
    digest, so their division is random but reproducible.

    Raises StrawberryError unless it consists of documents of valid ids.
    """
    lists = value["dataset"]
    if not isinstance(lists, list) or not all(isinstance(ids, list) for ids in lists):
        raise StrawberryError(f"{path}: its data set must be a list of documents")
    count = sum(map(len, lists))
    if count > path.stat().st_size:  # a few lists may be named again and again
        raise StrawberryError(f"{path}: names {count} ids, more than it can hold")
    if not count:
        raise StrawberryError(f"{path}: contains no ids")
    documents = [_document(ids, number, path) for number, ids in enumerate(lists)]
    vocab_size = 1 + max(int(ids.max()) for ids in documents if ids.size)
    if tokenizer is not None:
        if vocab_size > tokenizer.vocab_size:
            raise StrawberryError(
                f"{path}: has id {vocab_size - 1}, but the encoder has only {tokenizer.vocab_size} "
                "ids"
            )
        vocab_size = tokenizer.vocab_size
    documents.sort(key=lambda ids: hashlib.sha256(ids.tobytes()).digest())
    with new_folder(out) as part:
        with TokenWriter(part / TOKENS, vocab_size) as writer:
            for ids in documents:
                text = b"" if tokenizer is None else tokenizer.decode_bytes(ids.tolist())
                writer.append(ids, len(text))
        if tokenizer is not None:
            tokenizer.save(part / TOKENIZER)
    return count


def _document(ids: list[Any], number: int, path: Path) -> Ids:
    """The ids of a document; raises StrawberryError if they are invalid."""
    if not all(type(i) is int and 0 <= i < 1 << 30 for i in ids):
        raise StrawberryError(f"{path}: document {number} must be a list of ids")
    return np.array(ids, dtype=np.int64)
