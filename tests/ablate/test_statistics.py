"""The statistics, against simulations and against each other."""

import math

import numpy as np
import pytest

from strawberry.ablate.statistics import (
    compare,
    detectable,
    holm,
    power,
    speedup,
    steps_to,
    summary,
    undecided,
)

SEEDS = 5
CELLS = 4
RUNS = 1000


def simulated(
    rng: np.random.Generator, shifts: dict[str, float], noise: float = 0.02
) -> tuple[dict[int, float], dict[str, dict[int, float]]]:
    """A baseline and cells: what a seed does to all of them, and what it does to each."""
    shared = rng.normal(0, 0.05, SEEDS)
    values = {
        name: {s: 3 + shift + shared[s] + rng.normal(0, noise) for s in range(SEEDS)}
        for name, shift in {"": 0.0, **shifts}.items()
    }
    return values.pop(""), values


def test_false_findings_stay_below_alpha() -> None:
    """Of 1,000 ablations without any difference, at most 5 % flag a cell (and some noise)."""
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(RUNS):
        baseline, cells = simulated(rng, dict.fromkeys("abcd", 0.0))
        found = compare(baseline, cells, effect=0.03, alpha=0.05)
        flagged += any(c.verdict in ("better", "worse") for c in found.values())
    assert flagged / RUNS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / RUNS)
    assert flagged > 0  # a test that never finds anything would pass too


def test_uncorrected_p_values_would_not() -> None:
    """The control: without Holm's correction many more tables have a false finding."""
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(RUNS):
        baseline, cells = simulated(rng, dict.fromkeys("abcd", 0.0))
        found = compare(baseline, cells, effect=0.03, alpha=0.05)
        flagged += any(c.p < 0.05 for c in found.values())
    assert flagged / RUNS > 0.1


def test_power_is_as_computed() -> None:
    """A known difference is found as often as `power` says, in 1,000 ablations of one cell."""
    rng = np.random.default_rng(1)
    shift, noise = 0.06, 0.02
    hits = 0
    for _ in range(RUNS):
        baseline, cells = simulated(rng, {"a": shift}, noise)
        hits += compare(baseline, cells, effect=0.03)["a"].verdict == "worse"
    expected = power(shift, noise * math.sqrt(2), SEEDS, 0.05)
    assert 0.5 < expected < 0.99
    assert abs(hits / RUNS - expected) < 4 * math.sqrt(expected * (1 - expected) / RUNS)


def test_the_detectable_difference_has_the_stated_power() -> None:
    """It is the inverse of `power`, and shrinks with more seeds."""
    for n in (2, 3, 5, 20):
        assert power(detectable(0.02, n, 0.05), 0.02, n, 0.05) == pytest.approx(0.8, abs=1e-6)
    sizes = [detectable(0.02, n, 0.05) for n in (2, 3, 5, 20)]
    assert sizes == sorted(sizes, reverse=True)
    assert detectable(0.02, 1, 0.05) == math.inf


def test_intervals_cover_the_truth() -> None:
    """Of 1,000 paired differences 95 % lie in their interval."""
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(RUNS):
        baseline, cells = simulated(rng, {"a": 0.1})
        found = compare(baseline, cells, effect=0.03)["a"]
        inside += found.low <= 0.1 <= found.high
    assert abs(inside / RUNS - 0.95) < 4 * math.sqrt(0.05 * 0.95 / RUNS)


def test_looking_often_does_not_find_more() -> None:
    """Seeds added until something is found: with `looks`, still at most 5 % of false findings."""
    rng = np.random.default_rng(3)
    flagged = 0
    for _ in range(RUNS // 2):
        base, cell = rng.normal(3, 0.02, 10), rng.normal(3, 0.02, 10)
        for n in range(3, 11):
            one, other = ({s: float(v[s]) for s in range(n)} for v in (base, cell))
            if compare(one, {"a": other}, effect=0.03, looks=8)["a"].verdict in ("better", "worse"):
                flagged += 1
                break
    assert flagged / (RUNS // 2) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / (RUNS // 2))


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # by hand
        ([0.5, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_by_hand(p: list[float], corrected: list[float]) -> None:
    """Sorted, times what is left, never less than the one before."""
    assert holm(p) == pytest.approx(corrected)


def test_verdicts() -> None:
    """Each of the four, on numbers that leave no doubt."""
    base = {s: 3 + s / 10 for s in range(6)}
    wiggle = [0.001, -0.001, 0.0005, 0.0, -0.0005, 0.0002]
    cells = {
        "better": {s: base[s] - 0.1 + wiggle[s] for s in base},
        "worse": {s: base[s] + 0.1 + wiggle[s] for s in base},
        "no evidence": {s: base[s] + wiggle[s] for s in base},
        "under-powered": {s: base[s] + 300 * wiggle[s] for s in base},
    }
    found = compare(base, cells, effect=0.03)
    assert {name: c.verdict for name, c in found.items()} == {name: name for name in cells}
    assert undecided(found, 0.03) == ["under-powered"]
    scores = compare(base, cells, effect=0.03, lower_is_better=False)
    assert scores["better"].verdict == "worse"


def test_seeds_that_failed_are_not_paired() -> None:
    """Only seeds that both have count; a cell without two of them is under-powered."""
    base = {1: 3.0, 2: 3.1, 3: 3.2}
    found = compare(base, {"a": {3: 3.3, 4: 9.0}, "b": {}}, effect=0.03)
    assert (found["a"].n, found["a"].verdict) == (1, "under-powered")
    assert found["a"].difference == pytest.approx(0.1)
    assert (found["b"].n, found["b"].verdict) == (0, "under-powered")


def test_a_failed_cell_still_counts_in_the_correction() -> None:
    """A table that asked three questions corrects for three, whatever came of two."""
    base = {s: 3.0 + s / 10 for s in range(4)}
    one = {s: base[s] + 0.02 + 0.01 * (s % 2) for s in base}
    alone = compare(base, {"a": one}, effect=0.03)["a"]
    among = compare(base, {"a": one, "b": {}, "c": {}}, effect=0.03)["a"]
    assert among.corrected == pytest.approx(3 * alone.corrected)


def test_summary_of_few_values() -> None:
    """The bootstrap interval holds the mean; one value, or equal ones, have none to speak of."""
    found = summary([3.1, 3.2, 3.4, 3.15, 3.3])
    assert found.low < found.mean < found.high
    assert found.deviation == pytest.approx(np.std([3.1, 3.2, 3.4, 3.15, 3.3], ddof=1))
    assert math.isnan(summary([3.0]).low)
    assert (summary([3.0, 3.0]).low, summary([3.0, 3.0]).high) == (3.0, 3.0)
    assert summary([]).n == 0


def test_steps_to_a_loss() -> None:
    """Between two points it is on the line between them."""
    curve = [(10, 4.0), (20, 3.0), (30, 2.5)]
    assert steps_to(curve, 3.5) == pytest.approx(15)
    assert steps_to(curve, 4.5) == 10
    assert steps_to(curve, 2.0) is None
    assert speedup({1: curve}, {1: [(10, 5.0), (30, 3.0)]}) == pytest.approx(1.5)
    assert speedup({1: curve}, {1: [(30, 1.0)]}) is None
    scores = [(10, 0.2), (20, 0.6), (30, 1.0)]
    assert steps_to(scores, 0.8, lower_is_better=False) == pytest.approx(25)
    assert steps_to(scores, 1.1, lower_is_better=False) is None
    assert speedup({1: scores}, {1: [(30, 0.4)]}, lower_is_better=False) == pytest.approx(2.0)
