"""The plugins of this process: their records, components, and hook calls."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from strawberry.errors import PluginError, StrawberryError
from strawberry.plugin import loader
from strawberry.plugin.hooks import Manager, new_manager
from strawberry.plugin.kinds import Kinds
from strawberry.plugin.loader import Notice, PluginRecord
from strawberry.plugin.registry import Command, Registry, one_line
from strawberry.plugin.words import did_you_mean

__all__ = ["PluginRecord", "Plugins"]


class Plugins:
    """All plugins, loaded once; failures are recorded instead of raised.

    Attributes:
        records: one for each plugin, the built-in first.
        registry: the components of the loaded plugins.
        warnings: a line for each unusable plugin, and for each problem of the environment.
    """

    def __init__(
        self, records: list[PluginRecord], manager: Manager, warnings: Iterable[str] = ()
    ) -> None:
        self.records = records
        self.warnings = list(warnings)
        entries = [entry for record in records for entry in record.entries]
        unavailable = {r.name: _why(r) for r in records if r.status != "ok"}
        kinds = Kinds(kind for record in records for kind in record.kinds)
        self.registry = Registry(entries, unavailable, kinds)
        self._manager = manager

    @classmethod
    def load(
        cls,
        *,
        disabled: Collection[str] = (),
        files: Sequence[Path] = (),
        strict: bool | None = None,
        notice: Notice | None = None,
    ) -> Plugins:
        """Find and load the plugins of this environment.

        Args:
            disabled: names of plugins or distributions that must not be imported; `all` stands for
                every installed one except the built-in. `STRAWBERRY_DISABLE_PLUGINS` (names
                separated by commas) adds to it.
            files: local one-file plugins.
            strict: raise if any plugin is broken or incompatible; None asks
                `STRAWBERRY_STRICT_PLUGINS`.
            notice: receives a message about a plugin that takes long to import.

        Raises:
            PluginError: a local file does not exist; or, in strict mode, a plugin can't be used.
        """
        unwanted = {*disabled, *_words(os.environ.get("STRAWBERRY_DISABLE_PLUGINS", ""))}
        candidates, warnings = loader.discover(files)
        manager = new_manager()
        known, kinds, loaded = set(), Kinds(), []
        for candidate in candidates:
            record = candidate.record
            known |= record.aliases
            every = "all" in unwanted and not record.builtin and candidate.path is None
            if every or record.aliases & unwanted:
                record.status, record.error = "disabled", "disabled on request"
            else:
                loader.load(candidate, manager, kinds, notice)
                loaded.append(candidate)
        for candidate in loaded:
            if candidate.record.status == "ok":
                loader.register(candidate, manager, kinds, notice)
        records = [candidate.record for candidate in candidates]
        for name in sorted(unwanted - known - {"all"}):
            warnings.append(f"unknown plugin {name!r}{did_you_mean(name, known)}")
        unusable = [r for r in records if r.status in ("broken", "incompatible")]
        if unusable and _is_strict(strict):
            raise PluginError("\n".join(_line(record) for record in unusable))
        warnings += [f"{_line(r)}; `strawberry plugins` shows the details" for r in unusable]
        return cls(records, manager, [*warnings, *_environment(records)])

    def commands(self) -> dict[str, list[Command]]:
        """The commands of plugins, by name; a name may have several owners."""
        commands: dict[str, list[Command]] = {}
        for record in self.records:
            for command in record.commands:
                commands.setdefault(command.name, []).append(command)
        return commands

    @property
    def hook(self) -> Any:
        """Hook relay of pluggy; `call` names a plugin that raises."""
        return self._manager.hook

    def call(self, hook_name: str, **kwargs: Any) -> None:
        """Call a lifecycle hook of every plugin, in pluggy's order (the last registered first).

        All are called, even after one has raised.

        Raises:
            PluginError: names each plugin whose hook raised, with the location.
        """
        failures = []
        cause = None
        for implementation in reversed(getattr(self.hook, hook_name).get_hookimpls()):
            try:
                implementation.function(*(kwargs[name] for name in implementation.argnames))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too: a plugin can't end the program
                cause = cause or error
                failures.append(_failure(implementation, hook_name, error))
        if failures:
            raise PluginError("\n".join(failures)) from cause

    def ask(self, hook_name: str, **kwargs: Any) -> list[tuple[str, Any]]:
        """Plugins' answers to a hook, with their names; without those that return None.

        Raises:
            StrawberryError: a plugin raised it, about what was asked.
            PluginError: a plugin raised anything else.
        """
        answers = []
        for implementation in reversed(getattr(self.hook, hook_name).get_hookimpls()):
            arguments = (kwargs[name] for name in implementation.argnames)
            try:
                answers.append((implementation.plugin_name, implementation.function(*arguments)))
            except (KeyboardInterrupt, StrawberryError):
                raise
            except BaseException as error:
                raise PluginError(_failure(implementation, hook_name, error)) from error
        return [(name, answer) for name, answer in answers if answer is not None]


def _failure(implementation: Any, hook_name: str, error: BaseException) -> str:
    raised = f"raised {one_line(error)}{loader.place(error)}"
    return f"plugin {implementation.plugin_name!r}: {hook_name} {raised}"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _is_strict(strict: bool | None) -> bool:
    if strict is not None:
        return strict
    return os.environ.get("STRAWBERRY_STRICT_PLUGINS", "").lower() in ("1", "true", "yes", "on")


def _why(record: PluginRecord) -> str:
    """The state of an unusable plugin, after "plugin 'x'" in a sentence."""
    if record.status == "disabled":
        return "is disabled"
    if record.status == "incompatible":
        return f"is incompatible: it {record.error}"
    return f"failed to load: {record.error}"


def _line(record: PluginRecord) -> str:
    origin = f" ({record.distribution} {record.version})" if record.distribution else ""
    return f"plugin {record.name!r}{origin} {_why(record)}"


def _environment(records: list[PluginRecord]) -> list[str]:
    """Problems of the environment."""
    lines = []
    if not any(record.builtin for record in records):
        lines.append(
            f"the built-in components are missing: {loader.DISTRIBUTION} is not installed in this "
            "environment (`pip install -e .` in its checkout)"
        )
    try:
        version = importlib.metadata.version("strawberry-graphql")
    except importlib.metadata.PackageNotFoundError:
        return lines
    lines.append(
        f"strawberry-graphql {version} is installed in the same environment and uses "
        f"the same package name `strawberry`; install it and {loader.DISTRIBUTION} in "
        "separate environments"
    )
    return lines
