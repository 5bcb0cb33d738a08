"""Open a recipe's data set; user errors are located in the recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.contracts.data import (
    Corpus,
    Dataset,
    DataSite,
    DataSource,
    Progress,
    TokenizerSource,
    silent,
)
from strawberry.contracts.tokenizer import Tokenizer, check_tokenizer
from strawberry.data.files import MissingError
from strawberry.data.packed import too_short
from strawberry.data.readers import note
from strawberry.data.texts import kept_dataset
from strawberry.errors import FieldError, RecipeError, StrawberryError
from strawberry.files.storage import cache_folder, digest
from strawberry.recipe.seeds import seed_of

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe


def open_dataset(
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
    test: bool = False,
) -> Dataset:
    """Open a recipe's data set, ready for batches; derived files are cached.

    Args:
        recipe: its `data`, `tokenizer` and `model` sections are used.
        progress: progress callback for slow work.
        cache: the cache folder; None takes `STRAWBERRY_CACHE`, or the platform's cache folder.
        test: unlock the test split. Only the code that counts its openings does this
            (`strawberry.training.testing`).

    Raises:
        RecipeError: the data can't be opened or don't fit the model; located in the recipe.
    """
    site = data_site(recipe, cache=cache, progress=progress)
    spec = recipe.data
    with spec.located():
        dataset = _opened(recipe, site)
        _check_vocabulary(recipe, dataset.vocab_size, f"the {spec.use} data")
        for split in dataset.splits:
            n_tokens = dataset.n_tokens(split)
            if n_tokens is not None and n_tokens <= site.block_size:
                raise StrawberryError(too_short(split, n_tokens, site.block_size))
    if not test:
        dataset.seal()
    dataset.guard(note)
    return dataset


def data_site(
    recipe: Recipe, *, cache: Path | None = None, progress: Progress | None = None
) -> DataSite:
    """The sites of the recipe's data source and tokenizer; arguments as in `open_dataset`."""

    def tokenizer(corpus: Corpus) -> Tokenizer:
        spec = recipe.tokenizer
        with spec.located():
            source: TokenizerSource = spec.construct(site, contract=TokenizerSource)
            opened = source.open(corpus)
            opened.use = spec.use
            check_tokenizer(opened)
            _check_vocabulary(recipe, opened.vocab_size, f"the {spec.use} tokenizer")
        return opened

    site = DataSite(
        vocab_size=recipe.model.vocab_size,
        block_size=recipe.model.block_size,
        seed=seed_of(recipe, "data"),
        cache=cache or cache_folder(),
        folders=_folders(recipe),
        tokenizer=tokenizer,
        progress=progress or silent,
    )
    return site


def data_source(recipe: Recipe, site: DataSite | None = None) -> DataSource:
    """The recipe's data source, not opened yet; raises FieldError or StrawberryError."""
    site = site or data_site(recipe)
    source: DataSource = recipe.data.construct(site, contract=DataSource)
    return source


def _opened(recipe: Recipe, site: DataSite) -> Dataset:
    """Open the data source; if its text is missing, the tokens that a run recorded."""
    source = data_source(recipe, site)
    try:
        return source.open()
    except (FieldError, StrawberryError) as error:
        entry = recipe.origin.tokens.get(sections(recipe))
        kept = kept_dataset(entry, site.cache) if entry and _is_missing(error) else None
        if kept is None:
            raise
        return kept


def _is_missing(error: BaseException | None) -> bool:
    """Return whether an error is about a missing file."""
    return error is not None and (isinstance(error, MissingError) or _is_missing(error.__cause__))


def text_files(recipe: Recipe) -> list[str]:
    """The files and folders that a recipe's data are read from, and that of prepared tokens."""
    files, fields = [cache_folder() / "tokens"], list(recipe.data.fields.values())
    for value in fields:
        if isinstance(value, (list, tuple)):
            fields += value
        elif isinstance(value, str) and value:
            files += [path for folder in _folders(recipe) if (path := folder / value).exists()]
    return [os.path.realpath(path) for path in files]


def sections(recipe: Recipe) -> str:
    """A digest of all recipe fields that determine its tokens, without the named files."""
    return digest(recipe.data.to_dict(), recipe.tokenizer.to_dict(), recipe.model.vocab_size)


def load_run_tokenizer(path: Path, recipe: Recipe) -> Tokenizer:
    """The tokenizer that a run of `recipe` saved at `path`, in its source's format."""
    from strawberry.data.tokenizer import load_tokenizer

    with recipe.tokenizer.located():
        site = data_site(recipe)
        source: TokenizerSource = recipe.tokenizer.construct(site, contract=TokenizerSource)
        tokenizer = source.load(path) or load_tokenizer(path)
        tokenizer.use = recipe.tokenizer.use
        check_tokenizer(tokenizer)
        return tokenizer


def divided_ahead(recipe: Recipe) -> str:
    """The division of the data, in words, if known without opening them."""
    try:
        return data_source(recipe).divided()
    except (FieldError, StrawberryError, OSError):
        return ""  # told with its place when it is opened


def wordless_ahead(recipe: Recipe) -> list[str]:
    """A note if the model has ids that its texts never use, if known without opening the data.

    Unreadable data is ignored here; opening it reports the error with its location.
    """
    site = data_site(recipe)
    try:
        tokenizer = recipe.tokenizer.construct(site, contract=TokenizerSource)
        known = data_source(recipe, site).known_ids(tokenizer.known_ids())
    except (FieldError, StrawberryError):
        return []
    return wordless(known, recipe.model.vocab_size)


def wordless(known: int | None, room: int, gaps: Sequence[int] = ()) -> list[str]:
    """A note if a model of `room` ids has more than the `known` ones of its tokenizer.

    A further note if some of those ids, the `gaps`, are unused.
    """
    lines = []
    if gaps:
        few = ", ".join(map(str, gaps[:3])) + (", ..." if len(gaps) > 3 else "")
        lines.append(
            f"{len(gaps)} of the tokenizer's {known} ids are unused: they occur in no text "
            f"and are never generated: {few}"
        )
    if known is None or known >= room:
        return lines
    return [
        *lines,
        f"the tokenizer has {known} ids, the model {room}: the other {room - known} "
        f"occur in no text and are never generated; `vocab_size: {known}` removes them",
    ]


def _folders(recipe: Recipe) -> tuple[Path, ...]:
    return recipe.origin.folders or (Path.cwd(), recipe.source.absolute().parent)


def _check_vocabulary(recipe: Recipe, vocab_size: int, what: str) -> None:
    room = recipe.model.vocab_size
    if vocab_size > room:
        message = f"{what} has a vocabulary of {vocab_size}, larger than the model's {room}"
        raise RecipeError([recipe.model.at.problem("vocab_size", message)])
