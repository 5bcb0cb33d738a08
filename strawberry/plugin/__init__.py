"""Imports for plugin authors: the hook marker, and the types that hooks receive.

A plugin is a module without a torch import, advertised under the entry-point group `strawberry`:

    from strawberry.plugin import hookimpl

    @hookimpl
    def strawberry_register(registry):
        registry.attention("hyena", "my_package.hyena:Hyena")
"""

from strawberry.plugin.kinds import ComponentKind, Kinds
from strawberry.plugin.manager import PluginRecord, Plugins
from strawberry.plugin.registry import (
    Command,
    LookupFailure,
    Registrar,
    Registry,
    RegistryEntry,
)
from strawberry.plugin.signature import Kind
from strawberry.plugin.specs import API_VERSION, TaskOptions, hookimpl

__all__ = [
    "API_VERSION",
    "Command",
    "ComponentKind",
    "Kind",
    "Kinds",
    "LookupFailure",
    "PluginRecord",
    "Plugins",
    "Registrar",
    "Registry",
    "RegistryEntry",
    "TaskOptions",
    "hookimpl",
]
