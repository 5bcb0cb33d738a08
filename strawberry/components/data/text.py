"""Text of one's own, from files."""

from __future__ import annotations

from strawberry.contracts.data import Dataset, DataSite, DataSource
from strawberry.data.division import Division, HeldBack, check_division, divided_text
from strawberry.data.texts import text_corpus, text_dataset
from strawberry.files.storage import about


class TextFiles(DataSource):
    """Text files: `.txt` and `.md` hold a document each, `.jsonl` one a line, `.json` a list.

    A `.ndjson` is a `.jsonl`, and so is a `.json` with an object on each line. Files may be
    compressed (`.gz`, `.bz2`, `.xz`, `.zst`), links are followed, and documents that are empty or
    null are left out and counted. Documents are divided whole, by bytes: validation is the same
    text for every tokenizer.

    Args:
        path: a file, a folder (text files in it and below) or a pattern such as `texts/*.txt`;
            looked for from the current folder, then from the recipe's.
        field: the text field of JSON objects, with dots if it is nested (`meta.text`); plain JSON
            strings need none.
        data_division: the share of the text that is for training; the rest is for validation.
        test_division: the share of the text that is taken from training and held back for a test.
        special: make the texts of special tokens within documents into their ids.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        path: str,
        field: str = "text",
        data_division: Division = 0.9,
        test_division: HeldBack = 0.0,
        special: bool = False,
    ) -> None:
        super().__init__(site)
        self.path = path
        self.field = field
        check_division(data_division, test_division)
        self.data_division = data_division
        self.test_division = test_division
        self.special = special

    def open(self) -> Dataset:
        """The data set; raises FieldError about `path` if there is no text in it."""
        with about("path"):
            corpus = text_corpus(
                [self.path],
                self.site.folders,
                field=self.field,
                data_division=self.data_division,
                test_division=self.test_division,
                cache=self.site.cache,
                progress=self.site.progress,
            )
        return text_dataset(corpus, self.site, self.special)

    def known_ids(self, of_recipe: int | None) -> int | None:
        """Those of the recipe's tokenizer."""
        return of_recipe

    def divided(self) -> str:
        """By shares of the text."""
        return divided_text(self.data_division, self.test_division)
