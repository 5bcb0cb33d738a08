"""Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909; bytes as in GPT-2)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from strawberry.contracts.data import Corpus, DataSite, TokenizerSource
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.bpe import SPECIAL_TOKENS, check_room, check_special, split_pattern
from strawberry.data.files import find_files
from strawberry.data.reading import refuse_pickle
from strawberry.data.texts import TRAIN_BYTES, cached_bpe
from strawberry.data.tokenizer import INSTEAD, load_tokenizer
from strawberry.files.storage import about


class BPE(TokenizerSource):
    """Byte-level BPE: loaded from a file, or trained on the training split of the data.

    Args:
        path: a `tokenizer.json` to load, looked up in the current folder, then in the recipe's; any
            that the `tokenizers` library supports. The other fields are then unused.
        vocab_size: total number of ids, special tokens included; null takes `model.vocab_size`.
        special_tokens: texts of the last ids; must include `<|eot|>`, which ends a document.
        pattern: regular expression that splits text first: `gpt2`, `gpt4`, `gpt4o`, `code`, or one
            that matches all of any text.
        train_bytes: maximum bytes of training text, spread evenly over the data.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        path: str | None = None,
        vocab_size: Annotated[int, Field(ge=257)] | None = None,
        special_tokens: tuple[str, ...] = SPECIAL_TOKENS,
        pattern: str = "gpt4",
        train_bytes: Annotated[int, Field(ge=1)] = TRAIN_BYTES,
    ) -> None:
        super().__init__(site)
        with about("special_tokens"):
            check_special(special_tokens)
        with about("pattern"):
            split_pattern(pattern)
        self.path = path
        self.vocab_size = vocab_size
        self.special_tokens = special_tokens
        self.pattern = pattern
        self.train_bytes = train_bytes

    def open(self, corpus: Corpus) -> Tokenizer:
        """The tokenizer for a corpus; a trained one is cached."""
        if self.path is not None:
            return _loaded(self.path, self.site.folders)
        size = self.vocab_size or self.site.vocab_size
        with about("vocab_size"):
            check_room(size, self.special_tokens)
        return cached_bpe(
            corpus,
            size,
            special_tokens=self.special_tokens,
            pattern=self.pattern,
            train_bytes=self.train_bytes,
            cache=self.site.cache,
            progress=self.site.progress,
        )

    def known_ids(self) -> int | None:
        """The vocabulary size of the file, or of the training."""
        if self.path is not None:
            return _loaded(self.path, self.site.folders).vocab_size
        return self.vocab_size


def _loaded(path: str, folders: tuple[Path, ...]) -> Tokenizer:
    with about("path"):
        refuse_pickle(Path(path), INSTEAD)
        return load_tokenizer(find_files(path, folders)[0])
