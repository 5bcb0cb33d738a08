"""Interval, p-value, verdict and `detectable` agree, whatever is in a table."""

import math

import numpy as np
import pytest

from strawberry.ablate.noise import Prior
from strawberry.ablate.statistics import Comparison, compare, contrasts

KINDS = ("noise", "shifted", "ties", "one step", "alike", "large", "missing", "diverged", "unequal")
SIZES = ((2, 2), (2, 5), (3, 3), (6, 3), (5, 8), (12, 2))
"""Cells and seeds; few, since the draws of each size are made once."""
ALPHA, EFFECT = 0.05, 0.8


def table(kind: str, cells: int, seeds: int, rng: np.random.Generator) -> list[dict[int, float]]:
    """Values by seed, the baseline first."""
    values = rng.normal(0, 1, (cells, seeds)) + rng.normal(0, 3, seeds)
    if kind == "shifted":
        values += rng.normal(0, 6, (cells, 1))
    if kind == "ties":
        values = rng.binomial(160, 0.98, (cells, seeds)) / 160
    if kind == "one step":
        values = (rng.random((cells, seeds)) < 0.3) / 160 + 0.5
    if kind == "alike":
        values = np.repeat(rng.normal(0, 1, (1, seeds)), cells, axis=0)
    if kind == "large":
        values = values * 1e-9 + 1e6
    if kind == "unequal":
        values *= 10 ** rng.normal(0, 1, (cells, 1))
    if kind == "diverged":
        values[-1] = math.nan
    rows = [dict(enumerate(row.tolist())) for row in values]
    if kind == "missing":
        for number, row in enumerate(rows):
            row.pop(number % seeds)  # always the same ones, so that a size is drawn once
    return rows


def check(c: Comparison, *, finds: bool) -> None:
    """What has to hold of any comparison; `finds` if there is something to be found."""
    if c.n < 2:
        assert (c.verdict, c.low, c.high, c.detectable) == (
            "under-powered", -math.inf, math.inf, math.inf
        )  # fmt: skip
        return
    found = c.verdict in ("better", "worse")
    assert 0 < c.p <= c.corrected <= 1
    assert c.low <= c.difference <= c.high
    assert found == (c.corrected <= ALPHA) == (not c.low <= 0 <= c.high)
    assert finds or not found
    assert (c.verdict == "worse") <= (c.difference > 0)
    assert (c.verdict == "better") <= (c.difference < 0)
    inside = max(-c.low, c.high) <= EFFECT
    assert (c.verdict == "equivalent") == (inside and not found)
    if not found and not inside:
        assert (c.verdict == "no evidence") == (c.detectable <= EFFECT)
    assert c.detectable >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_everything_agrees(kind: str) -> None:
    """In 6 tables of each kind and size; what is alike, or one step apart, is no finding."""
    rng = np.random.default_rng(KINDS.index(kind))
    for cells, seeds in SIZES:
        for _ in range(6):
            base, *others = table(kind, cells, seeds, rng)
            named = dict(zip(map(str, range(cells - 1)), others, strict=True))
            for c in compare(base, named, effect=EFFECT, alpha=ALPHA).values():
                check(c, finds=kind not in ("alike", "one step"))


def test_a_difference_that_is_always_the_same_is_no_proof() -> None:
    """However many seeds agree on it to the last digit, and however many cells there are."""
    for cells, seeds in SIZES:
        base = {s: 3 + s / 7 for s in range(seeds)}
        named = {str(k): {s: v + k / 160 for s, v in base.items()} for k in range(1, cells)}
        for c in compare(base, {"1": named["1"]}, effect=EFFECT).values():
            check(c, finds=False)
        check(compare(base, named, effect=EFFECT)["1"], finds=False)


def test_a_cell_without_values_changes_no_difference() -> None:
    """One that diverged with every seed is asked for all the same, and the rest has its answer."""
    rng = np.random.default_rng(3)
    base, *others = table("shifted", 5, 5, rng)
    named = dict(zip("abcd", others, strict=True))
    whole = compare(base, named, effect=EFFECT)
    lacking = compare(base, {**named, "d": dict.fromkeys(range(5), math.nan)}, effect=EFFECT)
    assert lacking["d"].verdict == "under-powered"
    assert all(lacking[n].difference == pytest.approx(whole[n].difference) for n in "abc")
    assert compare(dict.fromkeys(range(5), math.nan), named, effect=EFFECT)["a"].n == 0


def test_a_noise_that_is_known_and_grids_agree_too() -> None:
    """With a campaign's noise, and for contrasts of several cells."""
    rng = np.random.default_rng(4)
    rows = [[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5], [0.5, -0.5, -0.5, 0.5]]
    for prior in (None, Prior(1.0, 8.0)):
        for kind in ("noise", "shifted", "missing"):
            for _ in range(12):
                cells = table(kind, 4, 5, rng)
                for c in contrasts(cells, rows, effect=EFFECT, alpha=ALPHA, prior=prior):
                    check(c, finds=True)
