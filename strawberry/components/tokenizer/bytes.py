"""Bytes as tokens: no training, and any text."""

from __future__ import annotations

from strawberry.contracts.data import Corpus, DataSite, TokenizerSource
from strawberry.data.bpe import END_OF_TEXT, BPETokenizer, byte_tokenizer, check_special
from strawberry.files.storage import about


class ByteTokenizer(TokenizerSource):
    """The 256 bytes of UTF-8, then the special tokens.

    Args:
        special_tokens: texts of the ids from 256 on; must include `<|eot|>`, which ends a document.
    """

    def __init__(self, site: DataSite, *, special_tokens: tuple[str, ...] = (END_OF_TEXT,)) -> None:
        super().__init__(site)
        with about("special_tokens"):
            check_special(special_tokens)
        self.special_tokens = special_tokens

    def open(self, corpus: Corpus) -> BPETokenizer:
        """The tokenizer, for any corpus."""
        return byte_tokenizer(self.special_tokens)

    def known_ids(self) -> int:
        """The bytes and the special tokens."""
        return 256 + len(self.special_tokens)
