"""From a recipe to its data set, with every user's mistake at its place in the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.contracts.data import (
    Corpus,
    Dataset,
    DataSite,
    DataSource,
    Progress,
    Tokenizer,
    TokenizerSource,
    silent,
)
from strawberry.contracts.ids import check_tokenizer
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
    """The recipe's data set, ready for batches; what it derives is cached.

    Args:
        recipe: its `data`, `tokenizer` and `model` sections are used.
        progress: called while something slow goes on.
        cache: the cache folder; None takes `STRAWBERRY_CACHE`, or else the platform's.
        test: leave the test split open, which is locked otherwise. Only what counts its openings
            asks for this (`strawberry.training.testing`).

    Raises:
        RecipeError: the data can't be had or don't fit the model; located in the recipe.
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
    """What the recipe's data source and its tokenizer are told; arguments as of `open_dataset`."""

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


def _opened(recipe: Recipe, site: DataSite) -> Dataset:
    """What the data source opens; where its text is gone, the tokens that a run noted."""
    source: DataSource = recipe.data.construct(site, contract=DataSource)
    try:
        return source.open()
    except (FieldError, StrawberryError) as error:
        entry = recipe.origin.tokens.get(sections(recipe))
        kept = kept_dataset(entry, site.cache) if entry and _is_missing(error) else None
        if kept is None:
            raise
        return kept


def _is_missing(error: BaseException | None) -> bool:
    """Whether an error is that of a file that is not there, in whatever words."""
    return error is not None and (isinstance(error, MissingError) or _is_missing(error.__cause__))


def sections(recipe: Recipe) -> str:
    """A digest of all in a recipe that decides its tokens, beside the files that it names."""
    return digest(recipe.data.to_dict(), recipe.tokenizer.to_dict(), recipe.model.vocab_size)


def load_run_tokenizer(path: Path, recipe: Recipe) -> Tokenizer:
    """The tokenizer that a run of `recipe` saved at `path`, in whatever form its source has."""
    from strawberry.data.tokenizer import load_tokenizer

    with recipe.tokenizer.located():
        site = data_site(recipe)
        source: TokenizerSource = recipe.tokenizer.construct(site, contract=TokenizerSource)
        tokenizer = source.load(path) or load_tokenizer(path)
        tokenizer.use = recipe.tokenizer.use
        check_tokenizer(tokenizer)
        return tokenizer


def divided_ahead(recipe: Recipe) -> str:
    """How the data are divided, in words, where that is known without opening them."""
    try:
        return recipe.data.construct(data_site(recipe), contract=DataSource).divided()
    except (FieldError, StrawberryError, OSError):
        return ""  # told with its place when it is opened


def wordless_ahead(recipe: Recipe) -> list[str]:
    """A line where it is known without opening the data that the model has ids beyond its texts.

    What can't be read is passed over: it is told with its place when it is opened.
    """
    site = data_site(recipe)
    try:
        tokenizer = recipe.tokenizer.construct(site, contract=TokenizerSource)
        data = recipe.data.construct(site, contract=DataSource)
        known = data.known_ids(tokenizer.known_ids())
    except (FieldError, StrawberryError):
        return []
    return wordless(known, recipe.model.vocab_size)


def wordless(known: int | None, room: int, gaps: Sequence[int] = ()) -> list[str]:
    """A line where a model of `room` ids has more than the `known` ones of its tokenizer.

    One more where some of those, the `gaps`, stand for nothing.
    """
    lines = []
    if gaps:
        few = ", ".join(map(str, gaps[:3])) + (", ..." if len(gaps) > 3 else "")
        lines.append(
            f"{len(gaps)} of the tokenizer's {known} ids stand for nothing, so no text has them, "
            f"and they are never generated: {few}"
        )
    if known is None or known >= room:
        return lines
    return [
        *lines,
        f"the tokenizer has {known} ids, the model {room}: no text has the other {room - known}, "
        f"which are never generated; `vocab_size: {known}` leaves them out",
    ]


def _folders(recipe: Recipe) -> tuple[Path, ...]:
    return recipe.origin.folders or (Path.cwd(), recipe.source.absolute().parent)


def _check_vocabulary(recipe: Recipe, vocab_size: int, what: str) -> None:
    room = recipe.model.vocab_size
    if vocab_size > room:
        message = f"{what} has a vocabulary of {vocab_size}, more than the model's {room}"
        raise RecipeError([recipe.model.at.problem("vocab_size", message)])
