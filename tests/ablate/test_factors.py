"""Effects of a grid's factors, against sums by hand and against simulations."""

import itertools

import numpy as np
import pytest

from strawberry.ablate.factors import Grid, effects, grid

SHAPE = (4, 2, 3)
HOW = {"effect": 0.5, "alpha": 0.05}


def made(values: np.ndarray) -> Grid:
    """The grid of an array of levels x levels x levels x seeds."""
    levels = {name: [str(i) for i in range(n)] for name, n in zip("abc", SHAPE, strict=True)}
    cells = {
        place: dict(enumerate(values[place].tolist()))
        for place in itertools.product(*map(range, SHAPE))
    }
    return Grid(levels, cells)


def test_effects_are_means_over_the_other_factors() -> None:
    """Main effects and interactions of a 4 x 2 x 3 grid are NumPy's means over its axes."""
    values = np.random.default_rng(0).normal(0, 1, (*SHAPE, 3))
    found = effects(made(values), **HOW)
    assert [effect.kind for effect in found] == ["main"] * 6 + ["interaction"] * 11
    one = next(e for e in found if (e.factors, e.levels) == (("a",), ("2",)))
    assert one.comparison.difference == pytest.approx(values[2].mean() - values[0].mean())
    assert (one.over, one.runs, one.comparison.n) == (6, 18, 3)
    two = next(e for e in found if (e.factors, e.levels) == (("a", "c"), ("3", "1")))
    means = values.mean(axis=(1, 3))
    assert two.comparison.difference == pytest.approx(
        means[3, 1] - means[3, 0] - means[0, 1] + means[0, 0]
    )
    assert two.name == "a=3 x c=1"


def test_a_factor_is_seen_where_single_cells_are_not() -> None:
    """A level that adds two deviations everywhere is found by its main effect, and only there."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (*SHAPE, 3)) + rng.normal(0, 2, 3)
    values[:, 1] += 2
    found = {effect.name: effect.comparison.verdict for effect in effects(made(values), **HOW)}
    assert found.pop("b=1") == "worse"
    assert not {"better", "worse"} & set(found.values())


def test_effects_of_nothing_are_seldom_found() -> None:
    """Of 200 grids without a difference, at most 5 % have a main effect or an interaction.

    Half of their cells are twice as noisy as the others.
    """
    rng = np.random.default_rng(2)
    flagged = {"main": 0, "interaction": 0}
    for _ in range(200):
        values = rng.normal(0, 1, (*SHAPE, 3))
        values[:, 1] *= 2
        names = {e.kind for e in effects(made(values), **HOW)
                 if e.comparison.verdict in ("better", "worse")}  # fmt: skip
        for name in names:
            flagged[name] += 1
    assert max(flagged.values()) / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


def test_a_missing_cell_costs_its_stratum_only() -> None:
    """Where a cell could not be run, the others' combinations still answer."""
    values = np.random.default_rng(3).normal(0, 1, (*SHAPE, 3))
    whole = made(values)
    cells = {place: found for place, found in whole.cells.items() if place != (1, 0, 0)}
    found = effects(Grid(whole.levels, cells), **HOW)
    assert next(e for e in found if e.name == "a=1").over == 5
    assert next(e for e in found if e.name == "a=2").over == 6
    expected = np.delete((values[1] - values[0]).reshape(6, 3), 0, axis=0).mean()
    assert next(e for e in found if e.name == "a=1").comparison.difference == pytest.approx(
        expected
    )


def test_the_grid_of_a_record() -> None:
    """Levels come from the cells' patches in order; a plan that is no grid has none."""
    plan = {"mode": "grid", "vary": {"model.stack.*.ffn": ["mlp", "moe"], "train.lr": [1, 2]}}
    cells = [
        {"name": f"{f}{r}", "patch": {"model.stack.*.ffn": f, "train.lr": r}}
        for f in ("mlp", {"use": "moe", "n": 4})
        for r in (1, 2)
    ]
    values = {cell["name"]: {1: 0.0, 2: 1.0} for cell in cells}
    found = grid(plan, cells, values)
    assert found is not None
    assert found.levels == {"model.stack.*.ffn": ["mlp", "moe(n=4)"], "train.lr": ["1", "2"]}
    assert [effect.name for effect in effects(found, **HOW)] == [
        "ffn=moe(n=4)", "lr=2", "ffn=moe(n=4) x lr=2",
    ]  # fmt: skip
    beside = {"name": "own", "patch": {"model.stack.*.ffn": "mlp", "train.lr": 1, "seed": 5}}
    more = grid({**plan, "cells": {"own": {}}}, [*cells, beside], {**values, "own": {1: 9.0}})
    assert more == found  # a cell of one's own takes the place of none
    assert grid({**plan, "mode": "paired"}, cells, values) is None
    assert grid({**plan, "vary": {"train.lr": [1, 2]}}, cells, values) is None
    assert effects(None) == ()
