"""Register all components of a test's plugin file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strawberry.plugin.kinds import CORE
from strawberry.plugin.registry import resolve


def register_classes(registry: Any, namespace: Mapping[str, Any]) -> None:
    """Register each class that a module defines, by its name, as the kind whose contract it has."""
    contracts = {kind.name: resolve(kind.contract, kind.name) for kind in CORE}
    for value in list(namespace.values()):
        if isinstance(value, type) and value.__module__ == namespace["__name__"]:
            for name, contract in contracts.items():
                if issubclass(value, contract):
                    registry.add(name, value.__name__, value)
