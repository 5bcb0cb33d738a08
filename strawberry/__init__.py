"""Strawberry: invent, build, train and ablate language-model architectures.

A complete run, in four lines:

    recipe = strawberry.load_recipe("recipes/air.yaml")
    model = strawberry.build(recipe)          # an ordinary nn.Module: ids (B, T) -> logits
    run = strawberry.train(recipe)            # a run folder
    text = strawberry.generate(run.folder, "import ")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strawberry.generation.text import generate as generate
    from strawberry.model.build import build
    from strawberry.recipe import load_recipe
    from strawberry.training.loop import train as train

__version__ = "0.1.0"
__all__ = ["__version__", "build", "generate", "load_recipe", "train"]

_HOMES = {
    "load_recipe": "strawberry.recipe",
    "build": "strawberry.model.build",
    "train": "strawberry.training",
    "generate": "strawberry.generation",
}
"""Modules of the public names; each is imported on first access, with torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
