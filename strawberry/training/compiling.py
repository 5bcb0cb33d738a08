"""Compiling a model for training, and keeping what the compiler made for the runs to come."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from strawberry.files.storage import cache_folder

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.runs.device import Machine

VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch's compiler keeps what it made, by the hash of the graph."""


def keep_compiled() -> None:
    """Let every run and trial of this user find what another one compiled.

    A variable of the user's own is left as it is.
    """
    os.environ.setdefault(VARIABLE, str(cache_folder() / "compiled"))


def compile_model(model: LanguageModel, machine: Machine) -> None:
    """Compile as the machine says: everything below the head, each block by itself, or nothing."""
    if not machine.compiled:
        return
    keep_compiled()
    if machine.compiled == "blocks":
        model.compile_blocks()
    else:
        model.compile_trunk()
