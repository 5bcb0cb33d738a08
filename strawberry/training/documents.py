"""Document boundaries, for models whose attention is restricted to documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.errors import RecipeError

if TYPE_CHECKING:
    from strawberry.data import Dataset
    from strawberry.recipe.spec import Recipe


def separator(recipe: Recipe, dataset: Dataset) -> int | None:
    """The id that begins a document, or None if the recipe doesn't separate documents.

    It also ends the previous document: generation starts with it. Raises RecipeError if the id is
    unknown.
    """
    if not recipe.train.document_mask:
        return None
    if dataset.eot is None:
        message = "this data has no tokenizer, so document boundaries are unknown"
        raise RecipeError([recipe.train.at.problem("document_mask", message)])
    return dataset.eot
