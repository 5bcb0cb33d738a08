"""Ids that another project wrote: nanoGPT's and llm.c's `.bin`, and `.npy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from strawberry.data.contracts import Dataset, DataSite, DataSource, Tokenizer
from strawberry.data.files import find_files
from strawberry.data.sharded import sharded_dataset
from strawberry.data.shards import SUFFIXES, divide
from strawberry.data.storage import about
from strawberry.data.tokenizer import load_tokenizer, tokenizer_beside
from strawberry.errors import StrawberryError


class Shards(DataSource):
    """Files of ids: `.bin` of nanoGPT, llm.c and modded-nanogpt, and one-dimensional `.npy`.

    Files with `val`, `valid` or `validation` in their names are validation (`val.bin`,
    `fineweb_val_000000.bin`), and all others training; both are read in the order of their names,
    as one stream each. Without any, the end of the training ids is validation.

    The recipe's `tokenizer` is not used. Without a tokenizer a run trains and evaluates, but
    has no bits per byte, and generates no text.

    Args:
        path: a file, a folder (`.bin` and `.npy` in it and below) or a pattern such as
            `fineweb10B/*.bin`; looked for from the current folder, then from the recipe's.
        val: the files of validation, given likewise; null goes by the names.
        tokenizer: the `tokenizer.json` that made the ids; null takes the one beside the first
            file, if there is one.
        dtype: type of the ids in files that don't say, which are nanoGPT's.
        eot: the id between documents, for `train.document_mask`; null takes the tokenizer's.
        data_division: the share for training where no file is validation.
    """

    def __init__(
        self,
        *,
        path: str,
        val: str | None = None,
        tokenizer: str | None = None,
        dtype: Literal["uint16", "uint32"] = "uint16",
        eot: Annotated[int, Field(ge=0)] | None = None,
        data_division: Annotated[float, Field(gt=0, lt=1)] = 0.9,
    ) -> None:
        self.path = path
        self.val = val
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.eot = eot
        self.data_division = data_division

    def open(self, site: DataSite) -> Dataset:
        """The data set; raises FieldError if files are not there, damaged, or hold other ids."""
        with about("path"):
            files = find_files(self.path, site.folders, SUFFIXES)
        if self.val is None:
            divided = divide(files)
        else:
            with about("val"):
                val = find_files(self.val, site.folders, SUFFIXES)
            divided = {"train": [path for path in files if path not in val], "val": val}
        with about("path"):
            if not divided["train"]:
                raise StrawberryError(f"{self.path}: no file is left for training")
        tokenizer = self._tokenizer(divided["train"][0], site.folders)
        with about("path"):
            return sharded_dataset(
                divided, self.dtype, self.data_division, tokenizer, self.eot, site
            )

    def _tokenizer(self, first: Path, folders: tuple[Path, ...]) -> Tokenizer | None:
        if self.tokenizer is None:
            return tokenizer_beside(first)
        with about("tokenizer"):
            return load_tokenizer(find_files(self.tokenizer, folders)[0])

    def known_ids(self, folders: tuple[Path, ...], of_recipe: int | None) -> int | None:
        """Those of the tokenizer that is named, or beside the first file."""
        tokenizer = self._tokenizer(find_files(self.path, folders, SUFFIXES)[0], folders)
        return None if tokenizer is None else tokenizer.vocab_size
