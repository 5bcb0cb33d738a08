"""The folders that a recipe's relative paths refer to, wherever it is used later.

Relative paths are looked up in the current folder, then in the folder of the recipe's file, then in
those of the files that it extends. A run records these folders, so its recipe means the same files
from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

NOTED: Final = "origin"
"""The key in a run's `run.json`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a recipe.

    Attributes:
        folders: absolute; a relative path is looked up in each, in this order.
        tokens: cache entries of a run's encoded data, by a digest of the sections that they depend
            on.
    """

    folders: tuple[Path, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Origin) -> Origin:
        """This origin, followed by the other."""
        folders = tuple(dict.fromkeys((*self.folders, *other.folders)))
        return Origin(folders, {**other.tokens, **self.tokens})

    def knowing(self, of: str, entry: str | None) -> Origin:
        """This origin, with the cache entry for the data of these sections."""
        return self if entry is None else replace(self, tokens={**self.tokens, of: entry})

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {"folders": [str(folder) for folder in self.folders], "tokens": dict(self.tokens)}


def origin_of(files: Sequence[Path]) -> Origin:
    """The origin of a recipe from these files, the extended ones last."""
    here = Origin((Path.cwd(),))
    noted = [noted_in(file.parent) if file.name == "recipe.yaml" else None for file in files]
    places = [
        Origin((file.absolute().parent,)) if note is None else note
        for file, note in zip(files, noted, strict=True)
    ]
    origin = sum(places, Origin())
    # What a run means must not depend on where somebody stands who looks at it.
    return origin + here if noted and noted[0] is not None else here + origin


def noted_in(run: Path) -> Origin | None:
    """The recorded origin of a run's recipe; None if it is no run, or recorded none."""
    try:
        noted = json.loads((run / "run.json").read_text())[NOTED]
        return read_origin(noted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_origin(value: Mapping[str, Any]) -> Origin:
    """Read the result of `Origin.to_dict`."""
    tokens = {str(of): str(entry) for of, entry in value["tokens"].items()}
    return Origin(tuple(map(Path, value["folders"])), tokens)
