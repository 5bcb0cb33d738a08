"""The library, imported when an optimizer is made and no sooner."""

from __future__ import annotations

import importlib
from typing import Any

from strawberry.errors import StrawberryError


def library(*others: str) -> Any:
    """pytorch-optimizer's module; raises StrawberryError if it, or one of `others`, isn't there."""
    for module in (*others, "pytorch_optimizer"):
        try:
            imported = importlib.import_module(module)
        except ImportError as error:
            name = module.replace("_", "-")
            raise StrawberryError(
                f"this optimizer needs the package {name}: pip install {name}"
            ) from error
    return imported
