"""A grid as a factorial design: the effect of each factor over all levels of the others.

A level's main effect is the mean of its cells minus that of the first level's cells, over the
combinations of the other factors that both have. The interaction of two levels is the change of one
level's effect with the other factor's level. Both are contrasts of the same runs. Every number uses
all runs, so effects are more precise than single cells (Fisher 1935).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from strawberry.ablate.statistics import LEAST, Comparison, contrasts

Kind: TypeAlias = Literal["main", "interaction"]
Place: TypeAlias = tuple[int, ...]
"""The level number of each factor."""


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a level, or the interaction of two levels of two factors.

    Attributes:
        kind: `main`, or `interaction`.
        factors: one or two paths in the recipe.
        levels: the compared levels, as text.
        against: the first levels, as text.
        over: number of combinations of the other factors' levels in the mean.
        runs: number of runs on each side.
        comparison: difference, interval, p-value and verdict; each kind is its own family.
    """

    kind: Kind
    factors: tuple[str, ...]
    levels: tuple[str, ...]
    against: tuple[str, ...]
    over: int
    runs: int
    comparison: Comparison

    @property
    def name(self) -> str:
        """`attention=linear`, or `attention=linear x ffn=moe`."""
        return " x ".join(
            f"{factor.rsplit('.', 1)[-1]}={level}"
            for factor, level in zip(self.factors, self.levels, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of a grid by position, and the levels of its factors."""

    levels: Mapping[str, Sequence[str]]
    cells: Mapping[Place, Mapping[int, float]]

    def main(self) -> Iterator[tuple[Place, Place, list[tuple[float, Place]]]]:
        """Each level after the first: factors, levels, and weights of cells."""
        for factor, names in enumerate(self.levels.values()):
            for level in range(1, len(names)):
                terms = [(1.0, (level,)), (-1.0, (0,))]
                yield (factor,), (level,), self._weights((factor,), terms)

    def pairs(self) -> Iterator[tuple[Place, Place, list[tuple[float, Place]]]]:
        """Each pair of levels after the first, for two factors: the same."""
        sizes = [len(names) for names in self.levels.values()]
        for one, other in itertools.combinations(range(len(sizes)), 2):
            for i, j in itertools.product(range(1, sizes[one]), range(1, sizes[other])):
                terms = [(1.0, (i, j)), (-1.0, (i, 0)), (-1.0, (0, j)), (1.0, (0, 0))]
                yield (one, other), (i, j), self._weights((one, other), terms)

    def _weights(
        self, factors: Place, terms: Sequence[tuple[float, Place]]
    ) -> list[tuple[float, Place]]:
        """Weights of cells: a mean over the combinations that all terms have."""
        sizes = [len(names) for names in self.levels.values()]
        rest = [range(1) if f in factors else range(n) for f, n in enumerate(sizes)]
        weights = []
        for place in itertools.product(*rest):
            cells = [(sign, _at(place, factors, levels)) for sign, levels in terms]
            if all(len(self.cells.get(cell, ())) >= LEAST for _, cell in cells):
                weights.append(cells)
        return [(sign / len(weights), cell) for cells in weights for sign, cell in cells]


def _at(place: Place, factors: Place, levels: Place) -> Place:
    changed = dict(zip(factors, levels, strict=True))
    return tuple(changed.get(number, level) for number, level in enumerate(place))


def grid(
    plan: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    values: Mapping[str, Mapping[int, float]],
) -> Grid | None:
    """The grid of a record's plan and cells; None unless at least two factors vary."""
    paths, own = list(plan["vary"]), plan.get("cells") or ()
    if plan["mode"] != "grid" or len(paths) < 2:
        return None
    levels: dict[str, dict[str, str]] = {path: {} for path in paths}
    places = {}
    for cell in cells:
        if cell["name"] in own or not all(path in cell["patch"] for path in paths):
            continue  # a patch of one's own beside the grid
        keys = [json.dumps(cell["patch"][path], sort_keys=True) for path in paths]
        for path, key in zip(paths, keys, strict=True):
            levels[path].setdefault(key, shown(cell["patch"][path]))
        place = tuple(list(levels[p]).index(k) for p, k in zip(paths, keys, strict=True))
        places[place] = values[cell["name"]]
    wide = [path for path in paths if len(levels[path]) > 1]
    if len(wide) < 2:
        return None
    kept = [paths.index(path) for path in wide]
    return Grid(
        {path: list(levels[path].values()) for path in wide},
        {tuple(place[k] for k in kept): values for place, values in places.items()},
    )


def shown(value: Any) -> str:
    """Format a level: a component by its name and fields."""
    if isinstance(value, Mapping) and "use" in value:
        rest = ",".join(f"{k}={shown(v)}" for k, v in value.items() if k != "use")
        return f"{value['use']}({rest})" if rest else str(value["use"])
    return json.dumps(value) if isinstance(value, (Mapping, list)) else str(value)


def effects(grid: Grid | None, **how: Any) -> tuple[Effect, ...]:
    """Main effects, then interactions of two factors; for `how` see `contrasts`."""
    if grid is None:
        return ()
    return (*_family(grid, "main", **how), *_family(grid, "interaction", **how))


def asked(grid: Grid, kind: Kind) -> list[tuple[Place, Place, list[float]]]:
    """Questions of a kind: factors, levels, and a weight for each cell in order."""
    places = list(grid.cells)
    requests = []
    for factors, levels, weights in grid.main() if kind == "main" else grid.pairs():
        row = [0.0] * len(places)
        for weight, place in weights:
            row[places.index(place)] = weight
        requests.append((factors, levels, row))
    return requests


def _family(grid: Grid, kind: Kind, **how: Any) -> Iterator[Effect]:
    questions = asked(grid, kind)
    comparisons = contrasts(list(grid.cells.values()), [row for _, _, row in questions], **how)
    paths, names = list(grid.levels), list(grid.levels.values())
    for (factors, levels, row), comparison in zip(questions, comparisons, strict=True):
        over = sum(weight != 0 for weight in row) // (2 * len(factors))
        yield Effect(
            kind=kind,
            factors=tuple(paths[f] for f in factors),
            levels=tuple(names[f][level] for f, level in zip(factors, levels, strict=True)),
            against=tuple(names[f][0] for f in factors),
            over=over,
            runs=over * comparison.n * len(factors),
            comparison=comparison,
        )
