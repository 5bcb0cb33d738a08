"""The user's own text files."""

from __future__ import annotations

from strawberry.contracts.data import TEST, Dataset, DataSite, DataSource
from strawberry.data.division import Division, HeldBack, check_division, divided_text
from strawberry.data.texts import held_out_corpus, text_dataset
from strawberry.files.storage import about


class TextFiles(DataSource):
    """Text files: `.txt` and `.md` are one document each, `.jsonl` has one a line, `.json` a list.

    `.ndjson` is read like `.jsonl`, and so is a `.json` with one object on each line. Files may be
    compressed (`.gz`, `.bz2`, `.xz`, `.zst`), links are followed, and empty or null documents are
    left out and counted. Whole documents are divided by bytes, so validation is the same text for
    every tokenizer; or it is a file of your own.

    Args:
        path: a file, a folder (its text files, recursively) or a pattern such as `texts/*.txt`;
            looked up in the current folder, then in the recipe's.
        val: files that are the validation split, whole, given likewise; null divides the text.
            Those that `path` has too are left out of training.
        test: the same for the locked test split.
        field: the text field of JSON objects, with dots if nested (`meta.text`); not used for plain
            JSON strings.
        data_division: fraction of the text for training; the rest is for validation.
        test_division: fraction of the text that moves from training to the locked test split.
        special: encode texts of special tokens within documents as their ids.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        path: str,
        val: str | None = None,
        test: str | None = None,
        field: str = "text",
        data_division: Division = 0.9,
        test_division: HeldBack = 0.0,
        special: bool = False,
    ) -> None:
        super().__init__(site)
        self.path = path
        self.val = val
        self.test = test
        self.field = field
        check_division(data_division, test_division)
        self.data_division = data_division
        self.test_division = test_division
        self.special = special

    def open(self) -> Dataset:
        """Open the data set; raises FieldError about `path` if there is no text."""
        with about("path"):
            corpus = held_out_corpus(
                [self.path],
                self.site.folders,
                {"val": self.val, TEST: self.test},
                field=self.field,
                data_division=self.data_division,
                test_division=self.test_division,
                cache=self.site.cache,
                progress=self.site.progress,
            )
        return text_dataset(corpus, self.site, self.special)

    def known_ids(self, of_recipe: int | None) -> int | None:
        """The vocabulary size of the recipe's tokenizer."""
        return of_recipe

    def divided(self) -> str:
        """The division: files of their own, or fractions of the text."""
        return divided_text(
            self.data_division, self.test_division, {"val": self.val, TEST: self.test}
        )
