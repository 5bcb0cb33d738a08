"""The gap of two architectures: pairs, the winner at a size, the crossing, and the gain."""

import numpy as np
import pytest

from strawberry.errors import StrawberryError
from strawberry.ladder.analysis import analyse, to_json
from strawberry.ladder.draws import draw, noise_in
from strawberry.ladder.fit import fit
from strawberry.ladder.gap import Gap, fit_gap, pairs_of
from strawberry.ladder.table import Runs, make_runs

RUNGS = 1e13 * 4.0 ** np.arange(5)
NOISE = 0.003


def ladder(powers: tuple[float, float], factor: float, seed: int = 0, *, seeds: int = 3) -> Runs:
    """Two architectures over a floor of 1.8; noise of a seed is mostly of both."""
    rng = np.random.default_rng(seed)
    both = rng.normal(0, NOISE, (len(RUNGS), seeds))
    rows = []
    for name, power, size in (("a", powers[0], 2.2), ("b", powers[1], 2.2 * factor)):
        for rung, flops in enumerate(RUNGS):
            for number in range(seeds):
                noise = both[rung, number] + rng.normal(0, NOISE / 3)
                loss = (1.8 + size * (flops / 1e13) ** -power) * np.exp(noise)
                rows.append({"architecture": name, "training_flops": flops, "seed": number,
                             "loss": loss})  # fmt: skip
    return make_runs(rows)


def gap_of(runs: Runs) -> Gap:
    """That of the second to the first."""
    return fit_gap(draw(fit(runs, "compute"), 60), 0, 1)


def test_pairs_share_size_and_seed() -> None:
    """A run pairs with the one of its seed and size; one without has no pair."""
    runs = ladder((0.2, 0.2), 1.0, seeds=2)
    pairs = pairs_of(runs.take(np.arange(len(runs)) != 3), 0, 1)
    assert len(pairs) == 9
    assert 12 not in pairs[:, 1]


def test_constant_gain() -> None:
    """A factor of 0.95 at equal exponents is a compute gain of 0.95^(-1/g) at every size."""
    gap = gap_of(ladder((0.2, 0.2), 0.95))
    assert gap.better(gap.highest) == "b"
    gain = float(np.median(gap.gain(gap.highest)[:, 0]))
    assert gain == pytest.approx(0.95**-5, rel=0.1)
    assert gap.crossing(gap.highest + np.log(100)) is None


def test_a_crossing_is_found() -> None:
    """One starts worse and falls faster: the interval holds where they cross."""
    truth = 1e13 * 1.08 ** (1 / 0.03)
    gap = gap_of(ladder((0.2, 0.23), 1.08))
    crossing = gap.crossing(gap.highest + np.log(1000))
    assert crossing is not None
    assert crossing[1] < np.log(truth) < crossing[2]


def test_equals_cannot_be_told() -> None:
    """Where nothing differs, no winner is called, far away or near."""
    for seed in range(4):
        gap = gap_of(ladder((0.2, 0.2), 1.0, seed))
        chances = gap.chance(np.array([gap.middle, gap.highest + np.log(1000)]))
        assert (chances > 0.005).all()
        assert (chances < 0.995).all()
        assert gap.crossing(gap.highest + np.log(1000)) is None


def test_a_pinned_floor_is_narrower() -> None:
    """The floor is drawn: pinned to one value, the gain far away is told too well."""
    runs = ladder((0.2, 0.23), 1.08)
    draws = draw(fit(runs, "compute"), 100)
    free = fit_gap(draws, 0, 1)
    vectors = draws.vectors.copy()
    vectors[:, 0] = np.median(vectors[:, 0])
    pinned = fit_gap(type(draws)(draws.fit, vectors, draws.noise), 0, 1)
    far = free.highest + np.log(100)
    spread = [np.ptp(np.quantile(np.log(g.gain(far)[:, 0]), [0.05, 0.95])) for g in (free, pinned)]
    assert spread[1] < spread[0]


def test_no_pairs_are_said() -> None:
    """Architectures without sizes in common have no gap, and the analysis says so."""
    runs = ladder((0.2, 0.2), 1.0)
    runs = runs.take((runs.place == 0) | (runs.flops > 1e15))
    with pytest.raises(StrawberryError, match="no two sizes"):
        gap_of(runs)
    both = ladder((0.2, 0.23), 1.08)
    content = to_json(analyse(both, count=60))
    assert content["gaps"][0]["pairs"] == 15
    assert [row["factor"] for row in content["gaps"][0]["sizes"]] == [1, 10, 100, 1000]


def branched(seed: int, shared: float) -> Runs:
    """Ladders of four sizes with three token counts each, whose runs share some of their noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for place, name in enumerate("ab"):
        for rung in range(4):
            for number in range(3):
                stem = rng.standard_normal()
                for share in (0.25, 0.5, 1.0):
                    n, d = 1e5 * 2.0**rung, 2e6 * 2.0**rung * share
                    noise = np.sqrt(shared) * stem + np.sqrt(1 - shared) * rng.standard_normal()
                    loss = (1.8 + 40 / n**0.3 + (60 - place) / d**0.3) * np.exp(0.01 * noise)
                    rows.append({"architecture": name, "parameters": n, "tokens": d,
                                 "seed": number, "loss": loss})  # fmt: skip
    return make_runs(rows)


def test_cooldowns_of_one_run_share_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is read from the runs, and widens the gap."""
    alone, common = (np.mean([noise_in(fit(branched(seed, share), "compute")).shared
                              for seed in range(8)]) for share in (0.0, 0.9))  # fmt: skip
    assert alone < 0.2
    assert common > 0.6
    draws = draw(fit(branched(0, 0.9), "compute"), 60)
    together = fit_gap(draws, 0, 1)
    monkeypatch.setattr(Runs, "stems", lambda runs: np.arange(len(runs)))
    apart = fit_gap(draws, 0, 1)
    assert np.std(together.level) > 1.2 * np.std(apart.level)
