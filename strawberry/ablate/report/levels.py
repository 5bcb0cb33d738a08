"""A grid's factors: what each of their levels comes to over all levels of the others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from strawberry.ablate.factors import shown
from strawberry.ablate.record import Record
from strawberry.ablate.report.table import Table


@dataclass(frozen=True, slots=True)
class Factor:
    """A path that a grid varies: its short name and its levels, in the plan's order."""

    path: str
    name: str
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Two or more factors, and each cell's levels of them.

    Attributes:
        places: a cell's levels, by its name.
        values: the metric by seed, of each cell's levels.
    """

    factors: tuple[Factor, ...]
    places: Mapping[str, tuple[str, ...]]
    values: Mapping[tuple[str, ...], Mapping[int, float]]

    def levels(self, index: int) -> list[dict[str, Any]]:
        """The metric of each level and seed: the mean over the other factors.

        Only combinations that have all levels with this seed count, so that levels differ in
        nothing else.
        """
        factor = self.factors[index]
        seeds = sorted({seed for found in self.values.values() for seed in found})
        rows = []
        for seed in seeds:
            others: dict[tuple[str, ...], dict[str, float]] = {}
            for place, found in self.values.items():
                if seed in found:
                    rest = place[:index] + place[index + 1 :]
                    others.setdefault(rest, {})[place[index]] = found[seed]
            whole = [found for found in others.values() if len(found) == len(factor.levels)]
            rows += [
                {"level": level, "seed": seed, "value": float(np.mean([f[level] for f in whole]))}
                for level in factor.levels
                if whole
            ]
        return rows

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of factors, that with more levels first."""
        return [
            (a, b) if len(self.factors[a].levels) >= len(self.factors[b].levels) else (b, a)
            for a, b in itertools.combinations(range(len(self.factors)), 2)
        ]

    def together(self, one: int, other: int) -> list[dict[str, Any]]:
        """The metric of each pair of levels and seed: the mean over the rest."""
        found: dict[tuple[str, str, int], list[float]] = {}
        for place, values in self.values.items():
            for seed, value in values.items():
                found.setdefault((place[one], place[other], seed), []).append(value)
        return [
            {"level": a, "other": b, "seed": seed, "value": float(np.mean(values))}
            for (a, b, seed), values in found.items()
        ]


def grid(record: Record, table: Table) -> Grid | None:
    """The grid of an ablation; None where it is none, or has one factor alone."""
    plan = record.content["plan"]
    if plan["mode"] != "grid" or plan["cells"]:
        return None
    varied = {path: tuple(map(shown, _listed(record, path))) for path in plan["vary"]}
    paths = [path for path, levels in varied.items() if len(levels) > 1]
    if len(paths) < 2:
        return None
    words = [path.rsplit(".", 1)[-1] for path in paths]
    names = words if len(set(words)) == len(words) else paths
    factors = tuple(
        Factor(path, name, varied[path]) for path, name in zip(paths, names, strict=True)
    )
    places = {row.name: tuple(shown(row.cell["patch"][path]) for path in paths)
              for row in table.rows}  # fmt: skip
    values = {places[row.name]: row.values for row in table.rows if row.values}
    return Grid(factors, places, values) if values else None


def _listed(record: Record, path: str) -> Sequence[Any]:
    """The levels that cells have of a path, in their order (`all` stands for several)."""
    found: list[Any] = []
    for cell in record.content["cells"]:
        if path in cell["patch"] and cell["patch"][path] not in found:
            found.append(cell["patch"][path])
    return found
