"""Fits of laws, beside a slow and literal search, known laws, and derivatives by differences."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from strawberry.errors import StrawberryError
from strawberry.ladder.analysis import analyse, to_json
from strawberry.ladder.draws import draw, interval
from strawberry.ladder.fit import fit
from strawberry.ladder.laws import Law
from strawberry.ladder.table import FLOPS, Runs, make_runs


def made(*, noise: float = 0.0, seeds: int = 1, names: str = "a", seed: int = 0) -> Runs:
    """Runs over a grid of N and D, whose law is known; a second architecture is 3 % larger in A."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        for n in 10.0 ** np.arange(6, 9.1, 0.5):
            for ratio in (5, 20, 80):
                for number in range(seeds):
                    loss = 1.7 + 300 * (1 + 0.03 * index) / n**0.33 + 900 / (n * ratio) ** 0.3
                    rows.append({"architecture": name, "parameters": n, "tokens": n * ratio,
                                 "loss": loss * math.exp(noise * rng.standard_normal()),
                                 "seed": number})  # fmt: skip
    return make_runs(rows)


def recursive() -> Runs:
    """Runs of which a part of the parameters is run several times: phi is 0.5."""
    rows = [
        {"parameters": once + inside, "tokens": tokens, "once": once, "recurred": inside,
         "steps": steps,
         "loss": 2 + 200 / (once + steps**0.5 * inside) ** 0.3 + 700 / tokens**0.32}
        for once, inside in ((1e5, 1e6), (4e5, 8e6), (1e6, 6e7))
        for steps in (1, 2, 4)
        for tokens in (1e8, 1e9, 1e10)
    ]  # fmt: skip
    return make_runs(rows)


def test_recovers_a_known_law() -> None:
    """Without noise the five numbers are found, whatever is expected of them."""
    done = fit(made(), "size_and_tokens")
    values = done.law.natural(done.vector)
    assert values["E"] == pytest.approx(1.7, rel=1e-3)
    assert values["a"] == pytest.approx(0.33, rel=1e-3)
    assert values["b"] == pytest.approx(0.3, rel=1e-3)
    assert values["A"] == pytest.approx(300, rel=0.02)
    assert values["B"] == pytest.approx(900, rel=0.02)


def test_recovers_what_a_turn_is_worth() -> None:
    """Recursion's law tells phi from runs with 1, 2 and 4 turns."""
    done = fit(recursive(), "recursion")
    values = done.law.natural(done.vector)
    assert values["phi"] == pytest.approx(0.5, abs=0.01)
    assert values["a"] == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("size_and_tokens", made(names="ab", noise=0.01)),
        ("compute", made(names="ab", noise=0.01)),
        ("recursion", recursive()),
    ],
)
def test_derivatives(name: str, runs: Runs, shared: bool) -> None:
    """What the loss changes with each parameter is what differences say."""
    law = Law.over(name, runs, shared=shared)
    vector = fit(runs, name, shared=shared).vector
    change = law.log_loss(vector, runs)[1]
    step = 1e-6
    for place in range(law.size):
        off = np.zeros(law.size)
        off[place] = step
        slope = (law.log_loss(vector + off, runs)[0] - law.log_loss(vector - off, runs)[0]) / 2
        np.testing.assert_allclose(change[:, place], slope / step, atol=1e-8)


def test_is_the_least_loss() -> None:
    """A search without derivatives, over the formula as it is written, ends at the same loss."""
    runs = made(noise=0.01)
    done = fit(runs, "size_and_tokens", delta=1e-3)
    n, d = runs.columns["parameters"], runs.columns["tokens"]

    def loss(p: np.ndarray) -> float:
        curve = np.exp(p[0]) + np.exp(p[1]) / n ** np.exp(p[2]) + np.exp(p[3]) / d ** np.exp(p[4])
        r = np.abs(np.log(curve) - np.log(runs.loss))
        huber = np.where(r <= 1e-3, r**2 / 2, 1e-3 * (r - 5e-4)).sum()
        expected = ((p[0] - math.log(0.6 * runs.loss.min())) / 0.7) ** 2
        expected += ((p[2] - math.log(0.34)) / 0.35) ** 2 + ((p[4] - math.log(0.34)) / 0.35) ** 2
        return 1e6 * (float(huber) + done.noise**2 * float(expected) / 2)

    values = {k: math.log(v) for k, v in done.law.natural(done.vector).items()}
    ours = np.array([values[k] for k in ("E", "A", "a", "B", "b")])
    best = min(
        (minimize(loss, ours + offset, method="Nelder-Mead", options={"maxiter": 4000}).fun)
        for offset in np.random.default_rng(3).normal(0, 0.02, (3, 5))
    )
    assert loss(ours) <= best * 1.001


def test_runs_that_are_far_off_are_left_out() -> None:
    """One that diverged moves nothing, and is named."""
    runs = made(noise=0.003)
    loss = runs.loss.copy()
    loss[4] *= 1.5
    done = fit(runs.with_loss(loss), "size_and_tokens")
    assert np.flatnonzero(done.outliers).tolist() == [4]
    assert done.noise < 0.006
    assert any("1 of 21 runs" in line for line in analyse(runs.with_loss(loss)).notes)


def test_a_floor_is_shared() -> None:
    """Two architectures have one E, and factors of their own, of which the ratio is found."""
    done = fit(made(names="ab"), "size_and_tokens", shared=True)
    values = done.law.natural(done.vector)
    assert sorted(values) == ["A[a]", "A[b]", "B[a]", "B[b]", "E", "a", "b"]
    assert values["A[b]"] / values["A[a]"] == pytest.approx(1.03, abs=0.002)


def test_seeds_and_sizes_are_drawn() -> None:
    """Intervals grow with the noise, and beyond the runs."""
    widths = []
    for noise in (0.002, 0.01):
        done = fit(made(noise=noise, seeds=2), "size_and_tokens")
        near = make_runs([{"parameters": 1e8, "tokens": 2e9}])
        far = make_runs([{"parameters": 1e11, "tokens": 2e12}])
        draws = draw(done, 60)
        for sizes in (near, far):
            low, high = interval(draws.curves(sizes))
            widths.append(float((high - low)[0]))
    assert widths[0] < widths[1] < widths[3]
    assert widths[0] < widths[2]


def test_what_the_table_allows() -> None:
    """N and D that grow together give a law of compute, and so do few sizes; both are said."""
    together = make_runs([{"parameters": n, "tokens": 20 * n, "loss": 2 + 9 / n**0.1}
                          for n in (1e6, 2e6, 4e6, 8e6, 2e7, 4e7)])  # fmt: skip
    assert "grow together" in analyse(together).why
    noisy = together.with_loss(together.loss * [1.01, 0.99, 1.0, 1.01, 0.99, 1.01])
    content = to_json(analyse(noisy.take(slice(0, 4))))
    assert "4 sizes can't give five numbers" in content["why"]
    assert not content["parameters"]["g"]["told_by_runs"]
    assert any("say little of" in line for line in content["notes"])
    with pytest.raises(StrawberryError, match="there is one size"):
        analyse(together.take([0]))


def test_leaving_out_the_largest() -> None:
    """Of a large table the rest predicts them, and most intervals hold; else they are widened."""
    made_of = analyse(made(noise=0.005, seeds=3))
    assert {t.column for t in made_of.tests} == {"training_flops", "parameters", "tokens"}
    assert all(t.error < 0.02 for t in made_of.tests)
    far = make_runs([{"parameters": 1e10, "tokens": 2e11}])
    predicted = made_of.predict(far)
    true = 1.7 + 300 / 1e10**0.33 + 900 / 2e11**0.3
    assert predicted.curve_low[0] < true < predicted.curve_high[0]
    assert predicted.low[0] < predicted.curve_low[0]


def test_best_size_of_a_compute() -> None:
    """It is where the loss along 6 N D = C is least."""
    done = analyse(made(), check=False)
    best = done.optimal(0, 1e21)
    assert best is not None
    n = np.geomspace(1e8, 1e12, 4001)
    sizes = make_runs([{"parameters": x, "tokens": 1e21 / (FLOPS * x)} for x in n])
    least = n[int(done.fit.loss(sizes).argmin())]
    assert best[0][0] == pytest.approx(least, rel=0.01)
    assert best[0][0] * best[1][0] * FLOPS == pytest.approx(1e21)


def test_other_architectures_are_refused() -> None:
    """A name that wasn't fitted is told its neighbour."""
    done = analyse(made(names="ab", noise=0.01), check=False, count=20)
    asked = make_runs([{"architecture": "c", "parameters": 1e9, "tokens": 1e10}])
    with pytest.raises(StrawberryError, match="no architecture 'c' was fitted; there is a, b"):
        done.predict(asked)
