"""Packages that import a public name when it is first asked for, and no torch before."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def homes(file: str) -> dict[str, str]:
    """The module of each public name of a package, from its `if TYPE_CHECKING:` imports.

    Args:
        file: path of the package's `__init__.py`.
    """
    tree = ast.parse(Path(file).read_text("utf-8"))
    blocks = (n.body for n in tree.body if isinstance(n, ast.If))
    imports = [n for body in blocks for n in body if isinstance(n, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def lazily(
    package: str, file: str
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__all__`, `__getattr__` and `__dir__`.

    Its public names are those of its `if TYPE_CHECKING:` imports, which a type checker reads too.

    Args:
        package: its `__name__`.
        file: its `__file__`.
    """
    modules = homes(file)

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    names = sorted(modules)
    return names, get, lambda: names
