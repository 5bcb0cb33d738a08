"""The statistics, against simulations and against each other."""

import math

import numpy as np
import pytest
from scipy import stats

from strawberry.ablate.alpha_spending import adjusted, levels
from strawberry.ablate.noise import design, granularity
from strawberry.ablate.null import null_of
from strawberry.ablate.statistics import (
    compare,
    contrasts,
    speedup,
    steps_to,
    summary,
    undecided,
)

SEEDS = 5
CELLS = 4
RUNS = 300


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
    """Of 500 ablations without any difference, at most 5 % flag a cell (and some noise)."""
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(RUNS):
        baseline, cells = simulated(rng, dict.fromkeys("abcd", 0.0))
        found = compare(baseline, cells, effect=0.03, alpha=0.05)
        flagged += any(c.verdict in ("better", "worse") for c in found.values())
    assert flagged / RUNS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / RUNS)
    assert flagged > 0  # a test that never finds anything would pass too


def test_uncorrected_intervals_would_not() -> None:
    """The control: without a correction many more tables have a false finding."""
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(RUNS):
        baseline, cells = simulated(rng, dict.fromkeys("abcd", 0.0))
        found = compare(baseline, cells, effect=0.03, alpha=0.05)
        flagged += any(abs(c.difference) > 2 * c.error for c in found.values())
    assert flagged / RUNS > 0.1


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    """A cell that differs by the design's `detectable` is found in 80 % of 300 ablations."""
    rng = np.random.default_rng(1)
    seen = ((True,) * SEEDS,) * (CELLS + 1)
    rows = tuple(
        tuple(-1.0 if c == 0 else float(c == k) for c in range(CELLS + 1))
        for k in range(1, CELLS + 1)
    )
    noise = 0.02
    shift = noise * null_of(design(seen, rows)).detectable(0, 0.05)
    hits = 0
    for _ in range(RUNS):
        baseline, cells = simulated(rng, {"a": shift, "b": 0.0, "c": 0.0, "d": 0.0}, noise)
        hits += compare(baseline, cells, effect=0.03)["a"].verdict == "worse"
    assert abs(hits / RUNS - 0.8) < 4 * math.sqrt(0.8 * 0.2 / RUNS)


def test_six_cells_of_three_seeds_find_more_than_pairs_do() -> None:
    """Four deviations are found in 88 % of tables; a paired t-test with Holm's correction: 22 %.

    With every second cell twice as noisy, it is 67 % of a quiet cell.
    """
    rng = np.random.default_rng(4)
    found = {1.0: 0, 2.0: 0}
    for times in found:
        noisy = np.where(np.arange(6) % 2 == 1, times, 1.0)[:, None]
        for _ in range(200):
            values = rng.normal(0, 1, (6, 3)) * noisy + rng.normal(0, 2, 3)
            values[2] += 4
            rows = [dict(enumerate(row.tolist())) for row in values]
            cells = {str(number): row for number, row in enumerate(rows[1:])}
            found[times] += compare(rows[0], cells, effect=1.0)["1"].verdict == "worse"
    assert found[1.0] / 200 > 0.85
    assert found[2.0] / 200 > 0.6


@pytest.mark.parametrize(
    ("noisy", "times"), [([0], 4.0), ([0], 2.0), ([0, 2, 4], 2.0), ([3], 4.0), ([1, 3, 5], 4.0)]
)
def test_unequal_noise_is_no_finding(noisy: list[int], times: float) -> None:
    """Of 300 tables without a difference, with some cells noisier, at most 5 % show one."""
    rng = np.random.default_rng(5)
    flagged = 0
    deviation = np.where(np.isin(np.arange(6), noisy), times, 1.0)[:, None]
    for _ in range(RUNS):
        values = rng.normal(0, 1, (6, 3)) * deviation
        rows = [dict(enumerate(row.tolist())) for row in values]
        made = compare(rows[0], {str(n): row for n, row in enumerate(rows[1:])}, effect=1.0)
        flagged += any(c.verdict in ("better", "worse") for c in made.values())
    assert flagged / RUNS <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / RUNS)


def test_a_cell_that_lacks_runs_hides_no_other() -> None:
    """Where one cell has two seeds of three, four deviations of another are found in 82 %."""
    rng = np.random.default_rng(11)
    found = 0
    for _ in range(150):
        values = rng.normal(0, 1, (6, 3)) + rng.normal(0, 2, 3)
        values[1] += 4
        rows = [dict(enumerate(row.tolist())) for row in values]
        del rows[5][0]
        made = compare(rows[0], {str(n): row for n, row in enumerate(rows[1:])}, effect=1.0)
        found += made["0"].verdict == "worse"
    assert found / 150 > 0.74


def test_the_variances_of_cells_are_told_apart() -> None:
    """With as many seeds as tell them, each cell's own is measured, though residuals mix them."""
    values = np.random.default_rng(12).normal(0, 1, (4, 400)) * np.array([[2.0], [1], [2], [3]])
    blocks = design(((True,) * 400,) * 4, ((-1.0, 1.0, 0.0, 0.0), (-1.0, 0.0, 1.0, 0.0)))
    squares = (values.reshape(1, -1) @ blocks.residual) ** 2
    own = squares @ blocks.of_cell.T @ blocks.solution
    assert own[0] == pytest.approx([4, 1, 4, 9], rel=0.25)
    assert blocks.freedom == pytest.approx(3 * 399)


@pytest.mark.parametrize("seeds", [2, 3])
def test_ties_are_no_finding(seeds: int) -> None:
    """Of 200 tables of 20 equal accuracies of 160 answers, at most 5 % hold a finding."""
    rng = np.random.default_rng(6)
    flagged = 0
    for _ in range(200):
        values = rng.binomial(160, 0.98, (20, seeds)) / 160
        rows = [dict(enumerate(row.tolist())) for row in values]
        made = compare(rows[0], {str(n): row for n, row in enumerate(rows[1:])}, effect=0.01)
        flagged += any(c.verdict in ("better", "worse") for c in made.values())
    assert flagged / 200 <= 0.05


def test_equal_differences_are_no_proof() -> None:
    """Two pairs that differ by the same last digit say little; cells that agree say nothing."""
    base = {1: 5.25, 2: 5.5}
    small = compare(base, {"a": {s: v + 3.8e-6 for s, v in base.items()}}, effect=0.05)["a"]
    assert small.corrected > 0.2
    assert small.verdict == "equivalent"  # neither better nor worse
    equal = compare(base, {"a": dict(base)}, effect=0.05)["a"]
    assert (equal.p, equal.corrected) == (1.0, 1.0)
    assert max(-equal.low, equal.high) < 1e-9
    assert equal.verdict == "equivalent"


def test_granularity() -> None:
    """The step of shares of 160 answers, and next to none of real numbers."""
    assert granularity([3 / 160, -7 / 160, 0.0, 5 / 160]) == pytest.approx(1 / 160)
    assert granularity([0.25, 0.25]) == 0.25
    assert granularity(np.random.default_rng(0).normal(size=9).tolist()) < 1e-4
    assert granularity([]) == 0.0


def test_interval_p_value_and_verdict_agree() -> None:
    """Whatever the values: the interval leaves 0 out where p is at most alpha, and nowhere else."""
    rng = np.random.default_rng(8)
    for _ in range(100):
        cells, seeds = int(rng.integers(2, 6)), int(rng.integers(2, 5))
        values = rng.normal(0, 1, (cells, seeds)) + rng.normal(0, 4, (cells, 1))
        rows = [dict(enumerate(row.tolist())) for row in values]
        made = compare(rows[0], {str(n): row for n, row in enumerate(rows[1:])}, effect=5.0)
        for found in made.values():
            excluded = not found.low <= 0 <= found.high
            assert excluded == (found.corrected <= 0.05)
            assert excluded == (found.verdict in ("better", "worse"))
            assert found.p <= found.corrected
            inside = max(-found.low, found.high) <= 5.0
            assert (found.verdict == "equivalent") == (inside and not excluded)


def test_contrasts_of_several_cells() -> None:
    """The mean of two cells against that of two others: their difference, and half the variance."""
    rng = np.random.default_rng(9)
    values = rng.normal(0, 1, (4, 6))
    rows = [dict(enumerate(row.tolist())) for row in values]
    half, one = contrasts(rows, [[-0.5, -0.5, 0.5, 0.5], [-1, 0, 1, 0]], effect=1.0)
    assert half.difference == pytest.approx(float((values[2:] - values[:2]).mean()))
    assert one.difference == pytest.approx(float((values[2] - values[0]).mean()))
    assert half.error < one.error


def test_looks_spend_alpha() -> None:
    """Of paths of a normal sum, looked at eight times, 5 % pass a level; one look has it all."""
    assert levels(1, 0.05) == (0.05,)
    rng = np.random.default_rng(10)
    sums = rng.standard_normal((40_000, 10)).cumsum(axis=1)[:, 2:]
    z = np.abs(sums) / np.sqrt(np.arange(3, 11))
    bounds = np.array([-stats.norm.ppf(level / 2) for level in levels(8, 0.05)])
    assert (z > bounds).any(axis=1).mean() == pytest.approx(0.05, abs=0.004)
    assert min(levels(8, 0.05)) > 1.5 * 0.05 / 8  # more than equal parts of it
    for look, level in enumerate(levels(8, 0.05)):
        assert adjusted(level, look, 8) == pytest.approx(0.05, rel=1e-2)


def test_intervals_cover_the_truth() -> None:
    """Of 500 paired differences 95 % lie in their interval."""
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


def test_verdicts() -> None:
    """Each of the five, on numbers that leave no doubt."""
    base = {s: 3 + s / 10 for s in range(6)}
    wiggle = [0.001, -0.001, 0.0005, 0.0, -0.0005, 0.0002]
    cells = {
        "better": {s: base[s] - 0.1 + wiggle[s] for s in base},
        "worse": {s: base[s] + 0.1 + wiggle[s] for s in base},
        "equivalent": {s: base[s] + wiggle[s] for s in base},
    }
    found = compare(base, cells, effect=0.03)
    assert {name: c.verdict for name, c in found.items()} == {name: name for name in cells}
    scores = compare(base, cells, effect=0.03, lower_is_better=False)
    assert scores["better"].verdict == "worse"
    noisy = {"a": {s: base[s] + 300 * wiggle[s] for s in base}}
    vague = compare(base, noisy, effect=0.03)
    assert vague["a"].verdict == "under-powered"
    assert undecided(vague, 0.03) == ["a"]
    wide = vague["a"].detectable
    shifted = {"a": {s: v + 0.3 * wide for s, v in noisy["a"].items()}}
    assert compare(base, shifted, effect=wide)["a"].verdict == "no evidence"


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
    assert among.corrected == pytest.approx(min(1.0, 3 * alone.corrected))


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
