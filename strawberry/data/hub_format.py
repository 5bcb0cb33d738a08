"""Read and write the `tokenizer.json` of the `tokenizers` library for byte-level vocabularies.

The format writes bytes as printable characters (as GPT-2 did), and merges as pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_REST = [b for b in range(256) if b not in _PRINTABLE]
_SYMBOLS = {b: chr(b) for b in _PRINTABLE} | {b: chr(256 + i) for i, b in enumerate(_REST)}
_BYTES = {symbol: b for b, symbol in _SYMBOLS.items()}
_SINGLE = [bytes([b]) for b in range(256)]
_TABLE = "".join(_SYMBOLS[b] for b in range(256))


def to_document(
    tokens: Sequence[bytes], special_tokens: Sequence[str], pattern: str | None
) -> bytes:
    """The content of a `tokenizer.json` for a vocabulary in the order of its ids."""
    value = _document(tokens, special_tokens, pattern)
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def from_document(value: Any) -> tuple[list[bytes], list[str], str | None] | None:
    """Tokens, special tokens and pattern of a parsed document; None unless `to_document` wrote it.

    Other files are not accepted, because their merges may not follow from their vocabulary.
    """
    try:
        ids = value["model"]["vocab"]
        tokens = [bytes(map(_BYTES.__getitem__, text)) for text in sorted(ids, key=ids.get)]
        special = [str(added["content"]) for added in value["added_tokens"]]
        first = value["pre_tokenizer"]
        pattern = None
        if first["type"] == "Sequence":
            pattern = str(first["pretokenizers"][0]["pattern"]["Regex"])
        same = tokens[:256] == _SINGLE and _document(tokens, special, pattern) == value
    except (KeyError, TypeError, IndexError, AttributeError):
        return None
    return (tokens, special, pattern) if same else None


def bytes_of(symbols: str) -> bytes | None:
    """The bytes of a token in printable characters; None if it is not such a token."""
    try:
        return bytes(map(_BYTES.__getitem__, symbols))
    except KeyError:
        return None


def _document(
    tokens: Sequence[bytes], special_tokens: Sequence[str], pattern: str | None
) -> dict[str, Any]:
    levels: dict[str, Any] = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
    }  # fmt: skip
    splitter: dict[str, Any] = {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    both = {"type": "Sequence", "pretokenizers": [splitter, levels]}
    texts = [_text(token) for token in tokens]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": len(tokens) + index, "content": text, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True,
            }
            for index, text in enumerate(special_tokens)
        ],
        "normalizer": None,
        "pre_tokenizer": levels if pattern is None else both,
        "post_processor": None,
        "decoder": levels,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {text: index for index, text in enumerate(texts)},
            "merges": _merges(texts),
        },
    }  # fmt: skip


def _merges(texts: Sequence[str]) -> list[list[str]]:
    """Every pair of tokens whose concatenation is a token, in the order of the results.

    These are more than the trained merges: any two adjacent tokens merge if their bytes are a
    token.
    """
    known = set(texts)
    return [
        [text[:at], text[at:]]
        for text in texts
        for at in range(1, len(text))
        if text[:at] in known and text[at:] in known
    ]


def _text(token: bytes) -> str:
    return token.decode("latin-1").translate(_TABLE)
