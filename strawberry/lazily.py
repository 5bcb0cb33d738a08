"""Packages that import a public name when it is first asked for, and no torch before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any


def lazily(
    package: str, names: Sequence[str], modules: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`.

    Args:
        package: its `__name__`.
        names: its `__all__`; none of them may be the name of one of its modules.
        modules: where the names are, in the order of looking: those of the package, and others by
            their full names.
    """

    def get(name: str) -> Any:
        for module in modules if name in names else ():
            absolute = module.startswith("strawberry.")
            home = importlib.import_module(module if absolute else f"{package}.{module}")
            if hasattr(home, name):
                value = getattr(home, name)
                setattr(sys.modules[package], name, value)
                return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(names)
