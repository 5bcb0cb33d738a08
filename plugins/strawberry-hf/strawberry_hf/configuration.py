"""The configuration of a model that has a recipe, for the Auto classes of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

import strawberry
from strawberry.errors import StrawberryError
from strawberry.recipe import Recipe, recipe_from

if TYPE_CHECKING:
    from strawberry.plugin import Plugins


class StrawberryConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """The recipe of a model, and what else decides its outputs.

    Args:
        recipe: the recipe as plain data, without the sections that no model is made of; None for a
            config without a model, which transformers makes to compare with.
        step: the training step of the weights; a curriculum decides by it.
        separator: the id that begins a document, if attention is restricted to documents.
        requires: version of each plugin distribution whose components the model has, by name.
    """

    model_type = "strawberry"
    keys_to_ignore_at_inference = ("cache", "past_key_values")

    def __init__(
        self,
        recipe: Mapping[str, Any] | None = None,
        *,
        step: int = 0,
        separator: int | None = None,
        requires: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.recipe = None if recipe is None else dict(recipe)
        self.step = step
        self.separator = separator
        self.requires = dict(requires or {})
        if recipe is not None:
            model = recipe["model"]
            kwargs.setdefault("vocab_size", model["vocab_size"])
            kwargs.setdefault("max_position_embeddings", model["block_size"])
            kwargs.setdefault("hidden_size", model["n_embd"])
        kwargs["tie_word_embeddings"] = False  # the model does that itself
        super().__init__(**kwargs)

    def strawberry_recipe(self, plugins: Plugins | None = None) -> Recipe:
        """The recipe, checked; raises RecipeError if this environment lacks one of its components.

        Args:
            plugins: resolve names; None loads the plugins of this environment.
        """
        if self.recipe is None:
            raise StrawberryError("this config has no recipe; `strawberry hf export` writes one")
        try:
            return recipe_from(self.recipe, "config.json", plugins=plugins)
        except StrawberryError as error:
            needed = [f"{name} {version}".strip() for name, version in self.requires.items()]
            if not needed:
                raise
            hint = f"the model was exported with {', '.join(needed)} and strawberry-lab "
            raise StrawberryError(f"{error}\n{hint}{strawberry.__version__}") from error
