"""Where the relative paths of a recipe are looked for, from whatever folder it is used later.

A recipe's paths are looked for from the current folder, then from the folder of its file, then from
those of the files that it extends. A run notes these folders, and so its recipe means the same
files from anywhere.
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
    """Where a recipe comes from.

    Attributes:
        folders: absolute; a relative path is looked for in each, in this order.
        tokens: entries of the cache that hold the encoded data of a run, by a digest of the
            sections that they were made of.
    """

    folders: tuple[Path, ...] = ()
    tokens: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Origin) -> Origin:
        """This one, and then the other."""
        folders = tuple(dict.fromkeys((*self.folders, *other.folders)))
        return Origin(folders, {**other.tokens, **self.tokens})

    def knowing(self, of: str, entry: str | None) -> Origin:
        """This one, with the entry of the cache that holds what these sections give."""
        return self if entry is None else replace(self, tokens={**self.tokens, of: entry})

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"folders": [str(folder) for folder in self.folders], "tokens": dict(self.tokens)}


def origin_of(files: Sequence[Path]) -> Origin:
    """The origin of a recipe that is made of these files, what it extends last."""
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
    """What a run folder notes of its recipe's origin; None if it is no run, or notes nothing."""
    try:
        noted = json.loads((run / "run.json").read_text())[NOTED]
        return read_origin(noted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_origin(value: Mapping[str, Any]) -> Origin:
    """What `Origin.to_dict` wrote."""
    tokens = {str(of): str(entry) for of, entry in value["tokens"].items()}
    return Origin(tuple(map(Path, value["folders"])), tokens)
