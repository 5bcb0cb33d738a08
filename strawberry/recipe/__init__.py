"""Recipes: read a YAML file into a resolved, validated `Recipe`."""

from __future__ import annotations

from strawberry.recipe.growth import carried, resized
from strawberry.recipe.load import load_recipe, patch, recipe_from
from strawberry.recipe.spec import BlockSpec, ComponentSpec, NodeSpec, Recipe, RecurSpec
from strawberry.recipe.tree import Node, in_order, located, show, unknown_keys

__all__ = [
    "BlockSpec",
    "ComponentSpec",
    "Node",
    "NodeSpec",
    "Recipe",
    "RecurSpec",
    "carried",
    "in_order",
    "load_recipe",
    "located",
    "patch",
    "recipe_from",
    "resized",
    "show",
    "unknown_keys",
]
