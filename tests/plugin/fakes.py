"""Fake distributions: real dist-info folders on the path, as an installer would leave them."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import textwrap
from pathlib import Path

import pytest

MANIFEST = """
from strawberry.plugin import hookimpl

@hookimpl
def strawberry_register(registry):
    {body}
"""


def hide_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no plugin be seen that happens to be installed, such as those of plugins/."""
    every = importlib.metadata.distributions
    ours = importlib.metadata.distribution("strawberry-lab").metadata["Name"]

    def visible(**context: object) -> list[importlib.metadata.Distribution]:
        names = ((d, d.metadata["Name"] or "") for d in every(**context))
        return [d for d, name in names if name == ours or not _installed(d, name)]

    monkeypatch.setattr(importlib.metadata, "distributions", visible)


def _installed(distribution: importlib.metadata.Distribution, name: str) -> bool:
    place = Path(str(distribution.locate_file("")))
    return name.startswith("strawberry-") and "site-packages" in place.parts


class FakeSite:
    """A folder on sys.path into which distributions can be installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.modules: set[str] = set()
        folder.mkdir()
        hide_installed(monkeypatch)
        monkeypatch.syspath_prepend(folder)

    def module(self, name: str, source: str) -> Path:
        """Write a top-level module."""
        self.modules.add(name)
        file = self.folder / f"{name}.py"
        file.write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()
        return file

    def install(
        self,
        distribution: str,
        source: str | None = None,
        *,
        entry: str | None = None,
        module: str | None = None,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
        entry_points: str | None = None,
    ) -> None:
        """Write a distribution with one entry point (its name, by default) to one module."""
        module = module or f"{distribution.replace('-', '_')}_manifest"
        if source is not None:
            self.module(module, source)
        if entry_points is None:
            entry_points = f"[strawberry]\n{entry or distribution} = {module}\n"
        write_distribution(self.folder, distribution, entry_points, version, requires)
        importlib.invalidate_caches()

    def forget(self) -> None:
        """Drop the modules that tests imported."""
        for name in [*sys.modules]:
            if name.split(".")[0] in self.modules or name.startswith("strawberry_local_"):
                del sys.modules[name]


def write_distribution(
    folder: Path,
    name: str,
    entry_points: str,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
) -> None:
    """Write a distribution's metadata into `folder`, as an installer does."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    (info / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def registers(*calls: str) -> str:
    """The source of a manifest that makes some calls on its registry."""
    return MANIFEST.format(body="; ".join(calls) or "pass")
