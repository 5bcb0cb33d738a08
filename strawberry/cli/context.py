"""State that all verbs share: the global options, and the plugins loaded with them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.cli.terminal import warn

if TYPE_CHECKING:
    from strawberry.plugin import Plugins


@dataclass
class _State:
    files: tuple[Path, ...] = ()
    disabled: tuple[str, ...] = ()
    plugins: Plugins | None = None


_state = _State()


def configure(files: Sequence[Path] = (), disabled: Sequence[str] = ()) -> None:
    """Store the global options, and forget plugins that were loaded under others."""
    _state.files, _state.disabled, _state.plugins = tuple(files), tuple(disabled), None


def plugins(*, quiet: bool = False) -> Plugins:
    """The plugins. The first call loads them and warns of those that can't be used."""
    if _state.plugins is None:
        from strawberry.plugin import Plugins

        _state.plugins = Plugins.load(files=_state.files, disabled=_state.disabled, notice=warn)
        for line in () if quiet else _state.plugins.warnings:
            warn(line)
    return _state.plugins


def options() -> list[str]:
    """The global options, as given."""
    files = [word for file in _state.files for word in ("--plugin", str(file))]
    return files + [word for name in _state.disabled for word in ("--no-plugin", name)]


def versions() -> str:
    """The output of `strawberry --version`: one line for Strawberry and one for each plugin."""
    from strawberry.plugin import API_VERSION
    from strawberry.plugin.loader import DISTRIBUTION

    parts = [f"{DISTRIBUTION} {_version(DISTRIBUTION)}", f"plugin API {API_VERSION}"]
    parts += [f"Python {platform.python_version()}", f"torch {_version('torch')}"]
    lines = [", ".join(parts)]
    for record in plugins().records:
        if not record.builtin:
            origin = f"{record.distribution} {record.version}".strip() or str(record.file)
            lines.append(f"plugin {record.name}: {origin}, {record.status}")
    return "\n".join(lines)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
