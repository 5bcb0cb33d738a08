"""Compile a model for training, and cache compiled code for later runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from strawberry.files.storage import cache_folder

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.runs.device import Machine

VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
"""The cache folder of torch's compiler, keyed by the hash of the graph."""


def keep_compiled() -> None:
    """Share compiled code among all runs and trials of this user.

    An existing environment variable of the user is not changed.
    """
    os.environ.setdefault(VARIABLE, str(cache_folder() / "compiled"))


def compile_model(model: LanguageModel, machine: Machine) -> None:
    """Compile for the machine: everything below the head, each block by itself, or nothing."""
    if not machine.compiled:
        return
    keep_compiled()
    if machine.compiled == "blocks":
        model.compile_blocks()
    else:
        model.compile_trunk()
