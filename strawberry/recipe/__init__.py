"""Recipes: YAML (or the original project's JSON) in, a resolved and validated `Recipe` out."""

from __future__ import annotations

from strawberry.recipe.load import load_recipe, patch
from strawberry.recipe.spec import Recipe

__all__ = ["Recipe", "load_recipe", "patch"]
