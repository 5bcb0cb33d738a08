"""A run of any recipe as a folder of transformers, with the recipe inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from strawberry.generation import LoadedRun

if TYPE_CHECKING:
    from strawberry.data import Tokenizer

MODEL_TYPE = "strawberry"
PREFIX = "model."
"""The prefix of every tensor's name."""
_ASIDE = (
    "data",
    "tokenizer",
    "schedule",
    "optimizer",
    "averaging",
    "measures",
    "trackers",
    "scale",
)
"""Sections of a recipe that no model is made of: their plugins aren't needed to load it."""


def own_config(loaded: LoadedRun, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The `config.json` of a run."""
    recipe = loaded.recipe
    kept = {key: value for key, value in recipe.to_dict().items() if key not in _ASIDE}
    separator = tokenizer.eot if tokenizer is not None and recipe.train.document_mask else None
    return {
        "architectures": ["StrawberryForCausalLM"],
        "model_type": MODEL_TYPE,
        "recipe": kept,
        "step": loaded.step,
        "separator": separator,
        "requires": required(loaded, kept),
        "vocab_size": recipe.model.vocab_size,
        "max_position_embeddings": recipe.model.block_size,
        "hidden_size": recipe.model.n_embd,
        "num_hidden_layers": len(loaded.model.visits()),
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def required(loaded: LoadedRun, recipe: Mapping[str, Any]) -> dict[str, str]:
    """The version of each plugin distribution that a recipe needs, by name."""
    plugins = loaded.recipe.plugins
    wanted = {use.partition("/")[0] for use in _uses(recipe)}
    return {
        record.distribution or f"{record.name} (a local file)": record.version
        for record in ([] if plugins is None else plugins.records)
        if record.name in wanted and not record.builtin
    }


def _uses(value: Any) -> Iterator[str]:
    """The full name of each component in plain data."""
    if isinstance(value, Mapping):
        if isinstance(value.get("use"), str):
            yield value["use"]
        for item in value.values():
            yield from _uses(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _uses(item)
