"""The registry: which components exist, their plugins, and their locations.

Nothing is imported before a component is used: a `RegistryEntry` holds a string target.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strawberry.errors import PluginError, StrawberryError
from strawberry.plugin.kinds import TARGET, Kinds
from strawberry.plugin.words import did_you_mean

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
# These words have a meaning of their own in a recipe, so a component of that name could never be
# chosen. `none` is a name only where doing nothing is itself a component.
_RESERVED = frozenset({"null", "true", "false", "none"})


class LookupFailure(StrawberryError):  # noqa: N818 (what failed, not a fault of the program)
    """A name matches no component, or several."""


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One registered component.

    Attributes:
        kind: the name of its kind.
        name: its short name.
        plugin: the name of the plugin that registered it.
        target: `module:attribute`, or the class itself in a local one-file plugin.
    """

    kind: str
    name: str
    plugin: str
    target: str | type

    @property
    def full_name(self) -> str:
        """`plugin/name`, unique within a kind."""
        return f"{self.plugin}/{self.name}"

    @property
    def where(self) -> str:
        """The target as text, `module:attribute`."""
        if isinstance(self.target, str):
            return self.target
        return f"{self.target.__module__}:{self.target.__qualname__}"

    def load(self) -> type:
        """Import and return the component's class.

        Raises:
            PluginError: the import fails, or the target is not a class.
        """
        what = f"plugin {self.plugin!r}: {self.kind} {self.name!r}"
        target = resolve(self.target, what) if isinstance(self.target, str) else self.target
        if not isinstance(target, type):
            raise PluginError(f"{what} ({self.where}): is a {type(target).__name__}, not a class")
        return target


@dataclass(frozen=True, slots=True)
class Command:
    """A plugin's command: `strawberry NAME`.

    Attributes:
        name: the word after `strawberry`.
        plugin: the name of the plugin that registered it.
        target: `module:attribute` of a function or a `typer.Typer`, or that itself in a local
            one-file plugin.
        help: a one-line description.
    """

    name: str
    plugin: str
    target: str | Callable[..., Any]
    help: str

    @property
    def where(self) -> str:
        """The target as text."""
        return self.target if isinstance(self.target, str) else f"in plugin {self.plugin!r}"

    def load(self) -> object:
        """Import and return the target; raises PluginError if that fails."""
        if not isinstance(self.target, str):
            return self.target
        return resolve(self.target, f"plugin {self.plugin!r}: command {self.name!r}")


def resolve(target: str, what: str) -> object:
    """Import `module:attribute`; raises PluginError, prefixed with `what`, if that fails."""
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
        if not hasattr(module, attribute):
            near = did_you_mean(attribute, vars(module))
            raise PluginError(f"{what} ({target}): that module has no {attribute!r}{near}")
        return getattr(module, attribute)
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:  # SystemExit too: a plugin can't end the program
        raise PluginError(f"{what} ({target}): {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """An exception as `Type: message`, on one line."""
    name = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{name}: {error.msg} ({error.filename}:{error.lineno})"
    text = " ".join(str(error).split())
    return f"{name}: {text}" if text else name


class Registrar:
    """The argument of a plugin's `strawberry_register(registry)`; each plugin has its own.

    It has a method for each kind, `registry.attention(name, target)`, and `add` for a kind given as
    text. A target is `"module:attribute"`; nothing is imported until a recipe uses it. A local
    one-file plugin may give the class itself. `command` adds a verb of the command line.
    """

    def __init__(self, plugin: str, *, local: bool = False, kinds: Kinds | None = None) -> None:
        self.kinds = kinds or Kinds()
        self.plugin = plugin
        self.local = local
        self.entries: list[RegistryEntry] = []
        self.commands: list[Command] = []

    def add(self, kind: str, name: str, target: str | type) -> None:
        """Register a component.

        Raises:
            PluginError: an unknown kind, an invalid name, a target of the wrong form, or a
                duplicate name.
        """
        if kind not in self.kinds:
            raise PluginError(self.kinds.unknown(kind))
        self._check_name(kind, name)
        self._check_target(kind, name, target)
        for other in self.entries:
            if (other.kind, other.name) == (kind, name):
                raise PluginError(f"{kind} {name!r} is registered twice; first as {other.where}")
        self.entries.append(RegistryEntry(kind, name, self.plugin, target))

    def command(
        self,
        name: str,
        target: str | Callable[..., Any],
        help: str,  # noqa: A002 (typer's word)
    ) -> None:
        """Register `strawberry NAME`: a function with typer's annotations, or a `typer.Typer`.

        Args:
            name: the word after `strawberry`; Strawberry's own verbs are taken.
            target: `"module:attribute"`, imported when the command is used; a local one-file
                plugin may give the function itself.
            help: a one-line description.

        Raises:
            PluginError: an invalid name or target, or a duplicate name.
        """
        self._check_name("command", name)
        named = isinstance(target, str) and TARGET.fullmatch(target)
        if not named and not (self.local and callable(target)):
            raise PluginError(
                f"command {name!r}: the target must be 'module:attribute', got {target!r}"
            )
        if any(name == other.name for other in self.commands):
            raise PluginError(f"command {name!r} is registered twice")
        self.commands.append(Command(name, self.plugin, target, help))

    def _check_name(self, kind: str, name: object) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(
                f"{kind} {name!r}: a name must be a letter, followed by letters, digits, '_', "
                "'-' or '.'"
            )
        does_nothing = name == "none" and kind in self.kinds and self.kinds[kind].is_own_nothing
        if name.lower() in _RESERVED and not does_nothing:
            raise PluginError(f"{kind} {name!r}: that word is reserved in recipes")

    def _check_target(self, kind: str, name: str, target: object) -> None:
        if isinstance(target, str) and TARGET.fullmatch(target):
            return
        if isinstance(target, type) and self.local:
            return
        hint = "the target must be 'module:attribute'"
        if isinstance(target, type):
            hint += ", as text, so that nothing is imported until a recipe uses it"
        raise PluginError(f"{kind} {name!r}: {hint}; got {target!r}")

    def __getattr__(self, kind: str) -> Callable[[str, str | type], None]:
        """`registry.KIND(name, target)`, for each known kind."""
        if kind.startswith("_") or kind not in self.kinds:
            raise AttributeError(self.kinds.unknown(kind))
        return functools.partial(self.add, kind)


class Registry:
    """The components of all loaded plugins.

    `unavailable` maps the name of each plugin that did not load to the reason ("failed to load:
    ...", "is disabled"), which a failed lookup shows.
    """

    def __init__(
        self,
        entries: Iterable[RegistryEntry] = (),
        unavailable: Mapping[str, str] | None = None,
        kinds: Kinds | None = None,
    ) -> None:
        self.kinds = kinds or Kinds()
        order = {name: index for index, name in enumerate(self.kinds.names)}
        self._entries = sorted(
            entries, key=lambda entry: (order[entry.kind], entry.name, entry.plugin)
        )
        self._unavailable = dict(unavailable or {})

    def entries(self, kind: str | None = None) -> list[RegistryEntry]:
        """All components, or those of one kind, sorted by kind, name and plugin."""
        return [entry for entry in self._entries if kind is None or entry.kind == kind]

    def find(self, kind: str, name: str) -> RegistryEntry:
        """The component with the name `name` (short, or `plugin/name`).

        Raises:
            LookupFailure: no or several components match; the text suggests names.
        """
        if kind not in self.kinds:
            raise LookupFailure(self.kinds.unknown(kind))
        plugin, slash, short = name.rpartition("/")
        matches = [
            entry
            for entry in self.entries(kind)
            if entry.name == short and (not slash or _answers(entry.plugin, plugin))
        ]
        exact = [entry for entry in matches if entry.full_name == name]
        if len(exact or matches) == 1:
            return (exact or matches)[0]
        if matches:
            owners = " or ".join(entry.full_name for entry in matches)
            raise LookupFailure(f"{kind} {name!r} is ambiguous: write {owners}")
        raise LookupFailure(self._not_found(kind, name, plugin, short))

    def short_name(self, entry: RegistryEntry) -> str:
        """The shortest unique name of `entry` within its kind."""
        same = [e for e in self._entries if (e.kind, e.name) == (entry.kind, entry.name)]
        return entry.name if len(same) <= 1 else entry.full_name

    def _not_found(self, kind: str, name: str, plugin: str, short: str) -> str:
        text = f"unknown {kind} {name!r}"
        if plugin in self._unavailable:
            return f"{text}: plugin {plugin!r} {self._unavailable[plugin]}"
        names = {entry.full_name for entry in self.entries(kind)}
        names = names if plugin else {entry.name for entry in self.entries(kind)}
        other = sorted({e.kind for e in self._entries if short in (e.name, e.full_name)} - {kind})
        text += did_you_mean(name, names)
        if other and not text.endswith("?"):
            text += f"; {name!r} is of kind {' and '.join(other)}"
        elif not names:
            text += f"; no {kind} is registered"
        for missing, why in self._unavailable.items():
            text += f"; note: plugin {missing!r} {why}"
        return text


def _answers(plugin: str, name: str) -> bool:
    """Return whether a plugin matches `name`; `dist:rope` matches `rope`, unless that exists."""
    return plugin == name or plugin.endswith(f":{name}")
