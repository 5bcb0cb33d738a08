"""Several sources of data in given shares."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from annotated_types import Gt, MinLen

from strawberry.contracts.data import Corpus, Dataset, DataSite, DataSource
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.corpora import JoinedCorpus
from strawberry.data.mixed import MixedDataset
from strawberry.errors import FieldError
from strawberry.files.storage import about
from strawberry.plugin.signature import Kind
from strawberry.recipe.spec import ComponentSpec

_NAME = re.compile(r"[a-z]\w*", re.ASCII | re.IGNORECASE).fullmatch
_DEFAULT: Any = ("strawberry/stdlib",)


class Mixture(DataSource):
    """A mixture of sources, such as `of: [{use: text, path: code/}, {use: tokens, path: web}]`.

    Of every 4,096 sequences, each source has its share exactly, in random order; so has the
    validation split. Evaluations report the loss of each source too, as `val_NAME_loss`. The
    recipe's tokenizer is trained on the text of all sources together; sources with ids of their own
    must have the same tokenizer. There is a test split if every source has one.

    Args:
        of: the sources; `{use: epochs, of: ...}` is one too.
        weights: their shares, in any unit (`[3, 1]`); null goes by their training tokens.
        names: a name for each source, for its loss; null names them source_1, source_2 and so on.
    """

    def __init__(
        self,
        site: DataSite,
        *,
        of: Annotated[tuple[ComponentSpec, ...], Kind("data"), MinLen(1)] = _DEFAULT,
        weights: tuple[Annotated[float, Gt(0)], ...] | None = None,
        names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(site)
        for field, given in (("weights", weights), ("names", names)):
            if given is not None and len(given) != len(of):
                raise FieldError(
                    field, f"has {len(given)} entries, but there are {len(of)} sources"
                )
        if names is not None and not (len(set(names)) == len(names) and all(map(_NAME, names))):
            raise FieldError("names", "expected different names of letters, digits and `_`")
        self.of = of
        self.sampled_as(self._source(of[0]))
        self.weights = weights
        self.names = names

    def open(self) -> Dataset:
        """Open all; raises RecipeError as they do, FieldError if they don't go together."""
        corpora: list[Corpus] = []

        def collect(corpus: Corpus) -> Tokenizer:
            corpora.append(corpus)
            raise _Collected

        looked = [self._opened(spec, collect) for spec in self.of]
        if corpora:
            tokenizer = self.site.tokenizer(
                corpora[0] if len(corpora) == 1 else JoinedCorpus(corpora)
            )
        parts = [
            self._opened(spec, lambda _: tokenizer) if part is None else part
            for spec, part in zip(self.of, looked, strict=True)
        ]
        with about("of" if self.weights is None else "weights"):
            return MixedDataset(
                [part for part in parts if part is not None], self.weights, self.names
            )

    def _opened(
        self, spec: ComponentSpec, tokenizer: Callable[[Corpus], Tokenizer]
    ) -> Dataset | None:
        """A source's data set; None if it asks for a tokenizer that `collect` doesn't give."""
        site = replace(self.site, tokenizer=tokenizer)
        with spec.located():
            source: DataSource = spec.construct(site, contract=DataSource)
            try:
                return source.open()
            except _Collected:
                return None

    def known_ids(self, of_recipe: int | None) -> int | None:
        """The most ids of any source, if all are known."""
        sizes = [self._source(spec).known_ids(of_recipe) for spec in self.of]
        return None if None in sizes else max(size or 0 for size in sizes)

    def divided(self) -> str:
        """The shares, and how the first source is divided."""
        told = [self._source(spec).divided() for spec in self.of]
        shares = (
            "" if self.weights is None else f", weights {':'.join(f'{w:g}' for w in self.weights)}"
        )
        same = told[0] if len(set(told)) == 1 else "; ".join(told)
        return f"{len(self.of)} sources{shares}: {same}"

    def _source(self, spec: ComponentSpec) -> DataSource:
        source: DataSource = spec.construct(self.site, contract=DataSource)
        return source


class _Collected(Exception):  # noqa: N818 (no error: a source has shown its corpus)
    """Raised instead of a tokenizer, which is trained once all corpora are known."""
