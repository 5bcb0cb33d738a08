"""The public API: the modules that a plugin may import, and of each the names in its `__all__`.

All else in Strawberry is internal and may change in any version. A policy test holds plugins/, the
templates of `strawberry new` and the authors' guide to this list.
"""

from __future__ import annotations

from typing import Final

PUBLIC: Final = {
    "strawberry": "the verbs: load a recipe, build, train, generate",
    "strawberry.contracts": "what each kind of component is held to, and helpers for what it asks",
    "strawberry.components": "parts of the built-in components that others are made of",
    "strawberry.errors": "errors that a user sees as one line",
    "strawberry.plugin": "hooks, kinds, the registry",
    "strawberry.testing": "the conformance kit as pytest fixtures",
    "strawberry.check": "the same from a program",
    "strawberry.commands": "for a command: the plugins in force, progress, tables, JSON",
    "strawberry.recipe": "recipes from files and from programs, and their trees of located values",
    "strawberry.model": "the model that `build` makes, and what it costs",
    "strawberry.data": "corpora, documents, tokenizers, token files",
    "strawberry.files": "files that are whole or not there, and notes about them",
    "strawberry.training": "train, evaluate, and runs that begin with weights from elsewhere",
    "strawberry.generation": "runs loaded and sampled from",
    "strawberry.ablate": "for an executor: a trial's process; for a program: a sweep",
}
"""Each public module, with what it is for."""
