"""Recipes that come with distributions, found by name: those of Strawberry, and those of plugins.

A wheel has them in its package's `recipes/`; a checkout has that folder beside the package and its
pyproject.toml.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from strawberry.plugin.words import did_you_mean

FOLDER: Final = "recipes"
RUN: Final = "recipe.yaml"
"""The recipe in a run's folder."""


@dataclass(frozen=True, slots=True)
class PackagedRecipe:
    """A recipe or a plan of an installed distribution.

    Attributes:
        name: what it is called by: its path in the folder, without the suffix.
        file: where it is.
        plugin: whose it is.
    """

    name: str
    file: Path
    plugin: str

    @property
    def summary(self) -> str:
        """The first sentence of the comment at its head."""
        words: list[str] = []
        for line in self.file.read_text().splitlines():
            if not line.startswith("#") or (words and line == "#"):
                break
            if not line.startswith("# yaml-language-server:"):
                words += line.lstrip("#").split()
        sentence, dot, _ = " ".join(words).partition(". ")
        return sentence + dot.strip()


def packaged(plugins: Plugins) -> list[PackagedRecipe]:
    """Those of Strawberry, then those of each working plugin, by name."""
    return [
        PackagedRecipe(file.relative_to(folder).with_suffix("").as_posix(), file, plugin)
        for plugin, folder in _folders(plugins)
        for file in sorted(folder.rglob("*.yaml"))
    ]


def locate(path: str | Path, plugins: Plugins) -> Path:
    """The file of a recipe or plan that is given as a path, as a run's folder, or by name.

    A path that exists goes before a name.

    Raises:
        StrawberryError: it is neither, or several plugins have a recipe of that name.
    """
    given = Path(path)
    try:
        if (given / RUN).is_file():
            return given / RUN
        if given.exists() and not given.is_dir():
            return given
    except (OSError, ValueError):  # too long a name, a folder that may not be read: reading says it
        return given
    if (named := by_name(str(path), plugins)) is not None:
        return named
    what = "is a folder without a run" if given.is_dir() else "there is no such file"
    near = did_you_mean(str(path), (each.name for each in packaged(plugins)))
    hint = near or "; `strawberry recipes` lists those"
    raise StrawberryError(f"{path}: {what}, and no packaged recipe of that name{hint}")


def by_name(name: str, plugins: Plugins) -> Path | None:
    """The packaged recipe of that name, with or without its suffix; None if there is none.

    Raises StrawberryError if several plugins have one.
    """
    word = name.removesuffix(".yaml")
    named = [each for each in packaged(plugins) if each.name == word]
    if len(named) > 1:
        owners = " and ".join(each.plugin for each in named)
        raise StrawberryError(
            f"{name}: {owners} both have a recipe of that name; give the path of one, "
            "which `strawberry recipes --json` shows"
        )
    return named[0].file if named else None


def _folders(plugins: Plugins) -> Iterator[tuple[str, Path]]:
    """The folder of recipes of each working plugin that has one."""
    for record in plugins.records:
        if record.status != "ok" or not record.distribution:
            continue
        spec = importlib.util.find_spec(record.module.partition(".")[0])
        for place in (spec and spec.submodule_search_locations) or ():
            package = Path(place)
            beside = package.parent / FOLDER
            if (package / FOLDER).is_dir():
                yield record.name, package / FOLDER
            elif beside.is_dir() and (package.parent / "pyproject.toml").is_file():
                yield record.name, beside
