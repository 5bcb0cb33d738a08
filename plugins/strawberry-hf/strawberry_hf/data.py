"""Text from data sets of Hugging Face, or from files of columns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from strawberry.data import (
    Corpus,
    Dataset,
    DataSite,
    DataSource,
    Division,
    FileCorpus,
    HeldBack,
    HeldOutCorpus,
    Split,
    check_division,
    divided_text,
    find_files,
    held_out,
    text_dataset,
)
from strawberry.errors import FieldError
from strawberry.files import FileFingerprints, about
from strawberry_hf.arrow import (
    SUFFIXES,
    check_column,
    path_of,
    read_column,
    schema_of,
    texts,
)

_ROWS = 1024


class Datasets(DataSource):
    """A text column of a data set on the Hugging Face hub, or of local files.

    Rows are documents. Whole documents are divided by bytes, so validation is the same text for
    every tokenizer. A data set of the hub is downloaded into the cache of the `datasets` library,
    and memory-mapped from there. Local files are read in place, batch by batch. Where the data set
    has validation and test splits of its own, `val` and `test` take them as they are.

    Args:
        path: a data set on the hub, `owner/name`, or a folder in the hub's layout.
        name: its configuration, where there are several.
        split: its split for training; `train[:10%]` and `train+test` are understood.
        val: its split for validation, such as `validation`, whole; with `files`, files likewise,
            which are left out of training. Null divides the text of `split`.
        test: the same for the locked test split.
        revision: a branch, tag or commit of it.
        files: instead of all these, local `.parquet`, `.arrow` or `.jsonl` files, the last also
            compressed: one, a folder, or a pattern; looked up in the current folder, then in the
            recipe's.
        field: the column that holds the text, with dots if it is nested (`meta.text`).
        data_division: fraction of the text for training; the rest is for validation.
        test_division: fraction of the text that moves from training to the locked test split.
        special: encode texts of special tokens within documents as their ids.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        path: str | None = None,
        name: str | None = None,
        split: str = "train",
        val: str | None = None,
        test: str | None = None,
        revision: str | None = None,
        files: str | None = None,
        field: str = "text",
        data_division: Division = 0.9,
        test_division: HeldBack = 0.0,
        special: bool = False,
    ) -> None:
        super().__init__(site)
        if (path is None) == (files is None):
            raise FieldError("path", "give either `path`, a data set on the hub, or local `files`")
        for key, value in (("name", name), ("revision", revision)):
            if files is not None and value is not None:
                raise FieldError(key, "local files have none; it goes with `path`")
        if files is not None and split != "train":
            raise FieldError("split", "local files have none: name the files that are wanted")
        self.path = path
        self.name = name
        self.split = split
        self.held: dict[Split, str | None] = {"val": val, "test": test}
        self.revision = revision
        self.files = files
        self.field = field
        check_division(data_division, test_division)
        self.data_division = data_division
        self.test_division = test_division
        self.special = special

    def open(self) -> Dataset:
        """The data set; raises FieldError about the field that can't be had."""
        corpus = self._of_files(self.files) if self.files is not None else self._of_hub()
        return text_dataset(corpus, self.site, self.special)

    def _of_files(self, pattern: str) -> Corpus:
        """The corpus of local files, some of which may be held out."""
        with about("files"):
            return held_out(
                lambda path: find_files(path, self.site.folders, SUFFIXES),
                [pattern],
                self.held,
                self._of_columns,
                self.data_division,
                self.test_division,
            )

    def _of_columns(self, files: Sequence[Path], train: float, test: float) -> Corpus:
        schemas = {file: schema_of(file) for file in files}
        with about("field"):
            for file, schema in schemas.items():
                if schema is not None:
                    check_column(schema, self.field, str(file))
        return self._corpus(
            files, lambda file: read_column(file, self.field), "columns 1", train, test
        )

    def _of_hub(self) -> Corpus:
        """The corpus of a data set's splits."""
        builder = self._builder(str(self.path))
        given = {split: name for split, name in self.held.items() if name is not None}
        base = self._of_split(
            builder,
            "split",
            self.split,
            1.0 if "val" in given else self.data_division,
            0.0 if given.get("test") else self.test_division,
        )
        held = {
            split: self._of_split(builder, split, name, 1.0, 0.0) for split, name in given.items()
        }
        return HeldOutCorpus(base, held) if held else base

    def _of_split(self, builder: Any, key: str, name: str, train: float, test: float) -> Corpus:
        """The corpus of a split, which stands in the field `key` of the recipe."""
        with _refused(str(self.path), key):
            rows = builder.as_dataset(split=name, in_memory=False)
        with about("field"):
            check_column(rows.features.arrow_schema, self.field, str(self.path))
        files = [Path(file["filename"]) for file in rows.cache_files]
        path = path_of(rows.features.arrow_schema, self.field)
        table = rows.select_columns([path[0]]).with_format("arrow")

        def read(file: Path) -> Iterator[str]:
            # The library gives one table over all its files, of which it may have taken a part.
            return texts(table.iter(_ROWS), path) if file == files[0] else iter(())

        with about("path"):
            return self._corpus(files, read, f"rows 1, {name}, {len(rows)}", train, test)

    def _corpus(
        self,
        files: Sequence[Path],
        read: Callable[[Path], Iterator[str]],
        reader: str,
        train: float,
        test: float,
    ) -> Corpus:
        return FileCorpus(
            files,
            read,
            reader=f"{reader}, {self.field}",
            data_division=train,
            test_division=test,
            identities=FileFingerprints(self.site.cache),
            progress=self.site.progress,
        )

    def known_ids(self, of_recipe: int | None) -> int | None:
        """The vocabulary size of the recipe's tokenizer."""
        return of_recipe

    def divided(self) -> str:
        """By shares of the text, or by splits of their own."""
        return divided_text(self.data_division, self.test_division, self.held)

    def _builder(self, path: str) -> Any:
        """The library's builder of the data set, which is in its cache, memory-mapped."""
        import datasets

        folders = self.site.folders
        self.site.progress(f"loading {path}", 0, None)
        if path.startswith((".", "/", "~")) and not any(
            (f / path).is_dir() for f in self.site.folders
        ):
            raise FieldError("path", f"{path}: no such folder; files go under `files:`")
        places = [folder / path for folder in folders if (folder / path).is_dir()]
        with _refused(path, "name"):
            builder = datasets.load_dataset_builder(
                str(places[0]) if places else path, self.name, revision=self.revision
            )
        with _refused(path, "path"):
            builder.download_and_prepare()
        return builder


@contextlib.contextmanager
def _refused(path: str, field: str) -> Iterator[None]:
    """Say in one line what the library refused: its ValueErrors are about `field`."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (HFValidationError, DatasetsError) as error:
        raise FieldError("path", f"{path}: {_line(error)}") from error
    except ConnectionError as error:
        raise FieldError(
            "path",
            f"{path}: {_line(error)}; without a network give local files (`files:` instead of "
            "`path:`), or load it once with a network: HF_HUB_OFFLINE=1 then uses what was kept",
        ) from error
    except OSError as error:
        raise FieldError("path", f"{path}: {_line(error)}") from error
    except ValueError as error:
        raise FieldError(field, f"{path}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split())
