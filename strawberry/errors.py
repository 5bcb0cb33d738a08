"""Errors for users: what is wrong, where, and what would be right.

Every user error is a `StrawberryError`. The command line prints its text and exits with its
`exit_code`, without a traceback. Any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "FieldError",
    "Location",
    "PluginError",
    "Problem",
    "RecipeError",
    "StrawberryError",
]


@dataclass(frozen=True, slots=True)
class Location:
    """A position in a text file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One error; `path` is its path in the recipe (`model.stack[2].attention`)."""

    message: str
    location: Location | None = None
    path: str = ""

    def __str__(self) -> str:
        where = [str(self.location)] if self.location else []
        if self.path:
            where.append(self.path)
        return ": ".join([*where, self.message])


class StrawberryError(Exception):
    """A user's mistake, or a state of the machine that the user can fix, described in its text."""

    exit_code = 2
    told = False  # whether it has been said already, by another process


class RecipeError(StrawberryError):
    """All errors of a recipe.

    `problems` holds at least one `Problem`; `str()` gives one line for each.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PluginError(StrawberryError):
    """A required plugin is broken, incompatible or disabled."""


class FieldError(ValueError):
    """Raised in a component's constructor if the value of `field` is invalid, with the reason.

    The builder turns it into a `Problem` at that field's line of the recipe. A plain `ValueError`
    is reported at the component's line.
    """

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class DamagedCheckpointError(StrawberryError):
    """A checkpoint differs from its manifest, or was not written by Strawberry."""
