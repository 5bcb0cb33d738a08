"""Data of the pictures of a grid's factors: each level's metric over the other factors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from strawberry.ablate.factors import Grid, Place, grid
from strawberry.ablate.record import Record
from strawberry.ablate.report.table import ResultTable


def table_grid(record: Record, table: ResultTable) -> Grid | None:
    """The grid of a table's cells; None without a grid of at least two factors."""
    values = {row.name: row.values for row in table.rows}
    cells = [cell for cell in record.content["cells"] if cell["name"] in values]
    return grid(record.content["plan"], cells, values) if any(values.values()) else None


def names(grid: Grid) -> list[str]:
    """The factors' short names: a path's last word, where that is unique."""
    words = [path.rsplit(".", 1)[-1] for path in grid.levels]
    return words if len(set(words)) == len(words) else list(grid.levels)


def alone(grid: Grid, index: int) -> list[dict[str, Any]]:
    """The metric of each level of a factor and seed, as the mean over the other factors.

    Only combinations that have all levels with this seed count, so that levels differ in nothing
    else.
    """
    levels = list(grid.levels.values())[index]
    rows = []
    for seed in sorted({seed for by_seed in grid.cells.values() for seed in by_seed}):
        others: dict[Place, dict[int, float]] = {}
        for place, by_seed in grid.cells.items():
            if seed in by_seed:
                rest = place[:index] + place[index + 1 :]
                others.setdefault(rest, {})[place[index]] = by_seed[seed]
        whole = [by_seed for by_seed in others.values() if len(by_seed) == len(levels)]
        rows += [
            {"level": level, "seed": seed, "value": float(np.mean([f[number] for f in whole]))}
            for number, level in enumerate(levels)
            if whole
        ]
    return rows


def pairs(grid: Grid) -> list[tuple[int, int]]:
    """Pairs of factors, the one with more levels first."""
    sizes = [len(levels) for levels in grid.levels.values()]
    return [
        (a, b) if sizes[a] >= sizes[b] else (b, a)
        for a, b in itertools.combinations(range(len(sizes)), 2)
    ]


def together(grid: Grid, one: int, other: int) -> list[dict[str, Any]]:
    """The metric of each pair of levels and seed, as the mean over the rest."""
    levels = list(grid.levels.values())
    merged: dict[tuple[str, str, int], list[float]] = {}
    for place, values in grid.cells.items():
        for seed, value in values.items():
            key = levels[one][place[one]], levels[other][place[other]], seed
            merged.setdefault(key, []).append(value)
    return [
        {"level": a, "other": b, "seed": seed, "value": float(np.mean(values))}
        for (a, b, seed), values in merged.items()
    ]
