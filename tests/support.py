"""What several tests need: recipes from plain data, small models."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.recipe.spec import Recipe

PLUGINS = Plugins.load()
"""Those of this environment, loaded once: most of the time of reading a small recipe."""

REGISTRY = Plugins.load(disabled=["fla"]).registry
"""The components that run on any machine: fla's layers need a GPU."""

TINY: dict[str, Any] = {"vocab_size": 61, "block_size": 16, "n_embd": 16}


def some_slow(names: Iterable[str], slow: Collection[str]) -> list[Any]:
    """Parameters of a test, of which some are slow tests."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


def recipe_of(model: dict[str, Any], *, plugins: Plugins = PLUGINS, **sections: Any) -> Recipe:
    """The recipe with this `model` section, and other sections as given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(yaml.safe_dump({"name": "test", "model": model, **sections}))
        return load_recipe(path, plugins=plugins)


def tiny(*stack: dict[str, Any], **model: Any) -> Recipe:
    """A recipe of width 16 over these stack entries."""
    return recipe_of({**TINY, **model, "stack": list(stack)})
