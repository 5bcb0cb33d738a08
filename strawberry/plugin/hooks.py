"""Find the hooks of a module, and check that each will really be called."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable
from typing import Any, Final

import pluggy

from strawberry.errors import PluginError
from strawberry.plugin import specs
from strawberry.plugin.words import did_you_mean

_MARK = f"{specs.GROUP}_impl"
_PREFIX = f"{specs.GROUP}_"
HOOKS: Final = {
    name: inspect.signature(function).parameters
    for name, function in vars(specs).items()
    if name.startswith(_PREFIX) and inspect.isfunction(function)
}
"""Names and parameters of the hooks."""


class Manager(pluggy.PluginManager):
    """pluggy's manager, restricted to functions; it never evaluates a module's attributes."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """The options of a hook implementation, or None; doesn't trigger a lazy `__getattr__`."""
        value = vars(plugin).get(name)
        return getattr(value, _MARK, None) if inspect.isfunction(value) else None


def new_manager() -> Manager:
    """A manager that knows the hooks, but no plugin."""
    manager = Manager(specs.GROUP)
    manager.add_hookspecs(specs)
    return manager


def check_hooks(module: types.ModuleType) -> list[str]:
    """The hooks of a module; each is checked to be callable."""
    hooks = []
    for name, value in sorted(vars(module).items()):
        if not inspect.isfunction(value):
            continue
        options = getattr(value, _MARK, None)
        if options is None:
            if name.startswith(_PREFIX) and value.__module__ == module.__name__:
                near = "" if name in HOOKS else did_you_mean(name, HOOKS)
                raise PluginError(f"{name} lacks @hookimpl{near}{_at(value)}")
            continue
        hook = options.get("specname") or name
        if hook not in HOOKS:
            if options.get("optionalhook"):
                continue
            raise PluginError(f"unknown hook {hook!r}{did_you_mean(hook, HOOKS)}{_at(value)}")
        if options.get("wrapper") or options.get("hookwrapper"):
            raise PluginError(f"{name}: hook wrappers are not supported{_at(value)}")
        _check_arguments(name, HOOKS[hook], value)
        hooks.append(hook)
    if not hooks:
        raise PluginError("it implements no hook; a plugin needs a @hookimpl strawberry_register")
    return sorted(hooks)


def _check_arguments(name: str, offered: Iterable[str], function: types.FunctionType) -> None:
    offered = list(offered)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise PluginError(
                f"{name}: a hook takes plain arguments only, got '{parameter}'{_at(function)}"
            )
        if parameter.name not in offered:
            near = did_you_mean(parameter.name, offered)
            raise PluginError(
                f"{name}: unknown argument {parameter.name!r}"
                f"{near or '; it has ' + ', '.join(offered)}{_at(function)}"
            )
        if parameter.default is not inspect.Parameter.empty:
            raise PluginError(
                f"{name}: argument {parameter.name!r} must have no default; it would replace "
                f"the value that the hook passes{_at(function)}"
            )


def _at(function: types.FunctionType) -> str:
    return f" ({function.__code__.co_filename}:{function.__code__.co_firstlineno})"
