"""Packages of the extra `ablate`, which ablations need."""

from __future__ import annotations

import importlib
from typing import Any

from strawberry.errors import StrawberryError


def needs(module: str) -> Any:
    """Import a module of the extra; raises StrawberryError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise StrawberryError(
            f"ablations need the package {package}: pip install 'strawberry-lab[ablate]'"
        ) from error
