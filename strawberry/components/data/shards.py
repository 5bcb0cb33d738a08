"""Token files of other projects: nanoGPT's and llm.c's `.bin`, and `.npy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from strawberry.contracts.data import TEST, Dataset, DataSite, DataSource, Split
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.division import (
    ADVISED,
    Division,
    HeldBack,
    check_division,
    divided_text,
)
from strawberry.data.files import find_files
from strawberry.data.sharded import sharded_dataset
from strawberry.data.shards import SUFFIXES, divide
from strawberry.data.tokenizer import load_tokenizer, tokenizer_beside
from strawberry.errors import FieldError, StrawberryError
from strawberry.files.storage import about


class ShardFiles(DataSource):
    """Files of ids: `.bin` of nanoGPT, llm.c and modded-nanogpt, and one-dimensional `.npy`.

    Files with `val`, `valid` or `validation` in their names are validation (`val.bin`,
    `fineweb_val_000000.bin`), and all others training; both are read in the order of their names,
    as one stream each. Without any, the end of the training ids is validation. Files with `test` in
    their names are the locked test split.

    The recipe's `tokenizer` is not used. Without a tokenizer, a run trains and evaluates, but has
    no bits per byte and generates no text.

    Args:
        path: a file, a folder (its `.bin` and `.npy`, recursively) or a pattern such as
            `fineweb10B/*.bin`; looked up in the current folder, then in the recipe's.
        val: the validation files, given likewise; null goes by the names.
        test: the files of the test split, given likewise; null goes by the names.
        tokenizer: the `tokenizer.json` of the ids; null takes the one in the first file's folder,
            if present.
        dtype: type of the ids in files without a header, as nanoGPT's.
        eot: id between documents, for `train.document_mask`; null takes the tokenizer's.
        data_division: fraction for training without validation files.
        test_division: fraction of all ids that moves from the end of training to the locked test
            split, without test files.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        path: str,
        val: str | None = None,
        test: str | None = None,
        tokenizer: str | None = None,
        dtype: Literal["uint16", "uint32"] = "uint16",
        eot: Annotated[int, Field(ge=0)] | None = None,
        data_division: Division = 0.9,
        test_division: HeldBack = 0.0,
    ) -> None:
        super().__init__(site)
        check_division(data_division, test_division)
        self.path = path
        self.val = val
        self.test = test
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.eot = eot
        self.data_division = data_division
        self.test_division = test_division

    def open(self) -> Dataset:
        """Open the data set; raises FieldError if files are missing, damaged, or have other ids."""
        with about("path"):
            files = find_files(self.path, self.site.folders, SUFFIXES)
        divided = self._divided(files)
        with about("path"):
            if not divided["train"]:
                raise StrawberryError(f"{self.path}: no file is left for training")
        tokenizer = self._tokenizer(divided["train"][0])
        with about("path"):
            return sharded_dataset(
                divided,
                self.dtype,
                self.data_division,
                tokenizer,
                self.eot,
                self.site,
                self.test_division,
            )

    def _divided(self, files: list[Path]) -> dict[Split, list[Path]]:
        """The files of each split, given or by their names; others are training."""
        splits = divide(files)
        given: dict[Split, str | None] = {"val": self.val, TEST: self.test}
        for split, pattern in given.items():
            if pattern is not None:
                with about(split):
                    splits[split] = find_files(pattern, self.site.folders, SUFFIXES)
        if both := [path for path in splits["val"] if path in splits[TEST]]:
            raise FieldError("test", f"{both[0]} is in the validation split already")
        held = {*splits["val"], *splits[TEST]}
        return {**splits, "train": [path for path in files if path not in held]}

    def _tokenizer(self, first: Path) -> Tokenizer | None:
        if self.tokenizer is None:
            return tokenizer_beside(first)
        with about("tokenizer"):
            return load_tokenizer(find_files(self.tokenizer, self.site.folders)[0])

    def known_ids(self, of_recipe: int | None) -> int | None:
        """The vocabulary size of the given tokenizer, or of the one in the first file's folder."""
        tokenizer = self._tokenizer(find_files(self.path, self.site.folders, SUFFIXES)[0])
        return None if tokenizer is None else tokenizer.vocab_size

    def divided(self) -> str:
        """The division: by files if names or the recipe say so, else by fractions."""
        files = self._divided(find_files(self.path, self.site.folders, SUFFIXES))
        if not files["val"]:
            return divided_text(self.data_division, self.test_division)
        told = f"train {len(files['train'])} files, val {len(files['val'])}"
        if files[TEST]:
            return f"{told}, test {len(files[TEST])} (locked)"
        if self.test_division:
            return f"{told}, test {self.test_division:g} of the ids (locked)"
        return f"{told}; no test split (test_division: {ADVISED}, or a file named test)"
