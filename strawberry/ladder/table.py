"""Runs as a table: parameters, tokens and loss of each, read from a CSV file.

All errors are located by the file's line and column, and reported together.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strawberry.errors import Location, Problem, RecipeError, StrawberryError
from strawberry.plugin.words import did_you_mean

Numbers: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.int64]

NUMBERS: Final = ("parameters", "tokens", "training_flops", "loss", "once", "recurred", "steps")
"""Columns of positive numbers: unique parameters; training tokens; 6 FLOPs a parameter and token;
loss in nats a token; of a recursive model its parameters outside of the recursion, those inside of
it, and how often these are run."""
COLUMNS: Final = (*NUMBERS, "architecture", "seed")
RECURSION: Final = ("once", "recurred", "steps")
FLOPS: Final = 6.0
"""Training FLOPs of a parameter and token: forward 2, backward 4 (Kaplan et al. 2020)."""
ONLY: Final = "all"
"""The architecture of a table that names none."""


@dataclass(frozen=True)
class Runs:
    """Runs, or sizes of which the loss is asked.

    Attributes:
        names: the architectures, in the order of the table.
        place: of each run, that of its architecture in `names`: (runs,).
        columns: by the names of `NUMBERS`: (runs,). `loss` is missing where it is asked.
        seed: of each run; -1 where none is known: (runs,).
        lines: where each run stands in its file; empty for runs that came from no file.
    """

    names: tuple[str, ...]
    place: Places
    columns: Mapping[str, Numbers]
    seed: Places
    lines: tuple[int, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.place)

    @property
    def loss(self) -> Numbers:
        """The loss of each run in nats a token: (runs,)."""
        return self.columns["loss"]

    @property
    def flops(self) -> Numbers:
        """Training FLOPs of each run: (runs,)."""
        return self.columns["training_flops"]

    @property
    def recursive(self) -> bool:
        """True if the runs name their recurring parameters."""
        return all(name in self.columns for name in RECURSION)

    def take(self, which: Any) -> Runs:
        """Some of the runs, by a mask or by indices; the names stay."""
        chosen = np.arange(len(self))[which]
        lines = tuple(self.lines[i] for i in chosen) if self.lines else ()
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return Runs(self.names, self.place[chosen], columns, self.seed[chosen], lines)

    def with_loss(self, loss: Numbers) -> Runs:
        """The same runs with other losses."""
        columns = {**self.columns, "loss": loss}
        return Runs(self.names, self.place, columns, self.seed, self.lines)

    def sizes(self) -> Places:
        """The number of each run's group, of one architecture, size and tokens: (runs,)."""
        keys = [self.place.astype(float)]
        keys += [np.round(np.log(self.columns[n]), 6) for n in ("parameters", "tokens")
                 if n in self.columns]  # fmt: skip
        keys += [np.round(np.log(self.flops), 6)]
        return np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)

    def stems(self) -> Places:
        """The number of each run's stem: (runs,).

        Runs of one architecture, size and seed differ in their tokens alone. They may be cooldowns
        of one run, and have its noise in common. A run of no known seed is a stem of its own.
        """
        size = self.columns.get("parameters")
        if size is None:
            return np.arange(len(self))
        own = np.where(self.seed < 0, np.arange(len(self)) + 1, 0)
        keys = np.stack([self.place, np.round(np.log(size), 6), self.seed, own])
        return np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1)


def make_runs(rows: Sequence[Mapping[str, Any]]) -> Runs:
    """Runs of dictionaries by column; what follows from other columns is added."""
    names = tuple(dict.fromkeys(str(row.get("architecture", ONLY)) for row in rows))
    place = np.array([names.index(str(row.get("architecture", ONLY))) for row in rows], np.int64)
    seed = np.array([int(row.get("seed", -1)) for row in rows], np.int64)
    columns = {
        name: np.array([float(row[name]) for row in rows])
        for name in NUMBERS
        if rows and all(name in row for row in rows)
    }
    lines = tuple(int(row["line"]) for row in rows if "line" in row)
    return Runs(names, place, _completed(columns), seed, lines)


def _completed(columns: dict[str, Numbers]) -> dict[str, Numbers]:
    """The columns, with those of parameters, tokens and FLOPs that the other two give."""
    parameters, tokens = columns.get("parameters"), columns.get("tokens")
    flops = columns.get("training_flops")
    if parameters is not None and tokens is not None and flops is None:
        return {**columns, "training_flops": FLOPS * parameters * tokens}
    if parameters is not None and tokens is None and flops is not None:
        return {**columns, "tokens": flops / (FLOPS * parameters)}
    return columns


def read_runs(path: Path, *, asked: bool = False) -> Runs:
    """The runs of a CSV file.

    Args:
        path: the file. Its first line names the columns: `parameters`, one of `tokens` and
            `training_flops`, `loss`, and perhaps `architecture` and `seed`; others are left alone.
        asked: whether it holds sizes of which the loss is asked; a `loss` is no mistake then.

    Raises:
        RecipeError: with every problem, at its line and column.
        StrawberryError: the file can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise StrawberryError(f"{path}: can't read: {reason}") from error
    reader = _Reader(path, lines, asked=asked)
    rows = reader.rows()
    if reader.problems:
        raise RecipeError(reader.problems)
    return make_runs(rows)


class _Reader:
    """Reads the lines of a CSV file, and keeps what is wrong with them."""

    def __init__(self, path: Path, lines: Sequence[str], *, asked: bool) -> None:
        self.path = path
        self.lines = lines
        self.asked = asked
        self.problems: list[Problem] = []

    def say(self, line: int, column: int, message: str) -> None:
        """Note a problem; line and column from 1."""
        self.problems.append(Problem(message, Location(str(self.path), line, column)))

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each line below the first that isn't blank."""
        if not self.lines or not self.lines[0].strip():
            self.say(1, 1, "expected a line that names the columns")
            return []
        heads = [(cell.strip(), column) for cell, column in cells(self.lines[0])]
        self.check_heads(heads)
        if self.problems:
            return []
        names = [name for name, _ in heads]
        rows = [
            self.row(number, line, names)
            for number, line in enumerate(self.lines[1:], 2)
            if line.strip()
        ]
        if not rows:
            self.say(len(self.lines), 1, "there is no run below the names of the columns")
        return rows

    def check_heads(self, heads: Sequence[tuple[str, int]]) -> None:
        """See that the columns are there that a fit needs, each once."""
        names = [name for name, _ in heads]
        for index, (name, column) in enumerate(heads):
            if name in names[:index] and name in COLUMNS:
                self.say(1, column, f"the column {name!r} stands here again")
        wanted = ["parameters"] if "training_flops" not in names else []
        wanted += [] if self.asked else ["loss"]
        wanted += [n for n in RECURSION if set(names) & set(RECURSION)]
        for name in wanted:
            if name not in names:
                others = [n for n in names if n not in COLUMNS]
                self.say(1, 1, f"the column {name!r} is missing{_near(name, others)}")
        if not {"tokens", "training_flops"} & set(names):
            self.say(1, 1, "the column 'tokens' or 'training_flops' is missing")

    def row(self, number: int, line: str, names: Sequence[str]) -> dict[str, Any]:
        """The run of a line."""
        given = cells(line)
        if len(given) != len(names):
            message = f"expected {len(names)} cells, as line 1 has, got {len(given)}"
            self.say(number, given[-1][1], message)
            return {}
        row: dict[str, Any] = {"line": number}
        for name, (cell, column) in zip(names, given, strict=True):
            if name in NUMBERS and not (self.asked and name == "loss"):
                row[name] = self.number(cell, number, column, name)
            elif name == "architecture":
                row[name] = cell.strip() or ONLY
            elif name == "seed":
                row[name] = self.seed(cell, number, column)
        return row

    def number(self, cell: str, line: int, column: int, name: str) -> float:
        """A number above 0; 1 where it is none, which is noted. Nothing is recurred 0 times."""
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        least = 0.0 if name in ("once", "recurred") else math.ulp(0.0)
        if least <= value < math.inf:
            return value
        self.say(
            line, column, f"{name}: expected a number above 0, got {cell.strip() or 'nothing'}"
        )
        return 1.0

    def seed(self, cell: str, line: int, column: int) -> int:
        """A whole number."""
        if cell.strip().isdecimal() and len(cell.strip()) < 19:
            return int(cell)
        self.say(line, column, f"seed: expected a whole number, got {cell.strip() or 'nothing'}")
        return 0


def cells(line: str) -> list[tuple[str, int]]:
    """The cells of a line, each with the column at which it begins, from 1."""
    return list(zip(next(csv.reader([line])), _starts(line), strict=False))


def _starts(line: str) -> Iterator[int]:
    """Start columns of the cells of a line."""
    yield 1
    quoted = False
    for column, letter in enumerate(line, 1):
        quoted ^= letter == '"'
        if letter == "," and not quoted:
            yield column + 1


def _near(name: str, names: Sequence[str]) -> str:
    hint = did_you_mean(name, names)
    return hint.replace("did you mean", "is it").replace("?", " here?") if hint else ""
