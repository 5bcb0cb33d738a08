"""Ladders of made losses: whether the intervals hold, and whether crossings are called rightly.

Each draw has its own law, rungs, seeds and noise. The fit sees the rungs, and predicts sizes of 10
and 100 times the largest rung's compute, where the law gives the truth. Half of the pairs of
architectures cross between the rungs and 100 times the largest, half nowhere.

    python tools/bench/ladder.py --draws 200
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strawberry.ladder.draws import draw, interval
from strawberry.ladder.fit import fit
from strawberry.ladder.gap import fit_gap
from strawberry.ladder.table import Runs, make_runs

START = 1e13
"""FLOPs of the smallest rung."""


@dataclass(frozen=True)
class Case:
    """A kind of ladder.

    Attributes:
        rungs: sizes.
        step: how many times the compute of the one before each has.
        seeds: runs of each size.
        own: deviation of ln L that a seed gives; a third of it is both architectures'.
        common: deviation that a size has in common over its seeds.
        power: exponents of compute are drawn between these.
        bend: whether the truth is a law of N and D, of which that of compute is only near.
    """

    rungs: int = 5
    step: float = 4.0
    seeds: int = 3
    own: float = 0.004
    common: float = 0.001
    power: tuple[float, float] = (0.12, 0.24)
    bend: bool = False


CASES = {
    "5 rungs x4, 3 seeds": Case(),
    "5 rungs x2, 3 seeds": Case(step=2.0),
    "5 rungs x4, 1 seed": Case(seeds=1),
    "4 rungs x4, 3 seeds": Case(rungs=4),
    "3 rungs x4, 3 seeds": Case(rungs=3),
    "rungs tuned unevenly": Case(common=0.005),
    "noise of 1 %": Case(own=0.01),
    "steep, 0.24 to 0.4": Case(power=(0.24, 0.4)),
    "flat, 0.06 to 0.12": Case(power=(0.06, 0.12)),
    "truth in N and D": Case(bend=True),
}


@dataclass(frozen=True)
class Truth:
    """The law that a draw's losses come from: two architectures over one floor."""

    floor: float
    terms: tuple[tuple[float, float], ...]
    other: tuple[tuple[float, float], ...]
    crossing: float | None

    def loss(self, flops: NDArray[np.float64], second: bool) -> NDArray[np.float64]:
        """Of one of them; each term is its size at the smallest rung, and its exponent."""
        terms = self.other if second else self.terms
        parts = [size * (flops / START) ** -power for size, power in terms]
        return self.floor + np.sum(parts, axis=0)


def truth(case: Case, rng: np.random.Generator, *, crosses: bool) -> Truth:
    """A law; the lowest rung's loss is about 4, of which the floor is 25 to 60 %."""
    floor = float(rng.uniform(0.25, 0.6)) * 4
    power = float(rng.uniform(*case.power))
    size = 4 - floor
    top = START * case.step ** (case.rungs - 1)
    if crosses:
        # From within the rungs to 100 times the largest, by a difference of exponents.
        where = float(np.exp(rng.uniform(np.log(START * case.step), np.log(30 * top))))
        slope = float(rng.choice([-1, 1]) * rng.uniform(0.01, 0.05))
        factor = (where / START) ** slope
        crossing: float | None = where
    else:
        slope = float(rng.normal(0, 0.01))
        most = abs(slope) * np.log(100 * top / START)
        factor = float(np.exp(rng.choice([-1, 1]) * (0.005 + most + rng.exponential(0.03))))
        crossing = None
    split = [(0.5, power * 0.8), (0.5, power * 1.25)] if case.bend else [(1.0, power)]
    terms = tuple((size * share, p) for share, p in split)
    other = tuple((size * share * factor, p + slope) for share, p in split)
    return Truth(floor, terms, other, crossing)


def ladder(case: Case, law: Truth, rng: np.random.Generator) -> Runs:
    """Runs of two architectures on the rungs."""
    flops = START * case.step ** np.arange(case.rungs, dtype=np.float64)
    rows: list[dict[str, Any]] = []
    both = rng.normal(0, case.own / np.sqrt(3), (case.rungs, case.seeds))
    for second in (False, True):
        off = rng.normal(0, case.common, case.rungs)
        own = rng.normal(0, case.own * np.sqrt(2 / 3), (case.rungs, case.seeds))
        for rung, loss in enumerate(law.loss(flops, second)):
            for seed in range(case.seeds):
                noise = both[rung, seed] + own[rung, seed] + off[rung]
                rows.append({
                    "architecture": "AB"[second],
                    "seed": seed,
                    "training_flops": flops[rung],
                    "loss": loss * np.exp(noise),
                })  # fmt: skip
    return make_runs(rows)


def one(case: Case, rng: np.random.Generator, *, crosses: bool) -> dict[str, float]:
    """A draw's fit, with the truth."""
    law = truth(case, rng, crosses=crosses)
    runs = ladder(case, law, rng)
    done = fit(runs, "compute")
    draws = draw(done, 100)
    top = float(runs.flops.max())
    told: dict[str, float] = {}
    for factor in (10, 100):
        rows = [{"architecture": name, "training_flops": factor * top} for name in "AB"]
        asked = make_runs(rows)
        true = np.array([law.loss(np.array([factor * top]), bool(k))[0] for k in range(2)])
        low, high = np.exp(interval(draws.curves(asked)))
        told[f"held{factor}"] = float(((low <= true) & (true <= high)).mean())
        told[f"bias{factor}"] = float((done.loss(asked) / true - 1).mean())
        told[f"width{factor}"] = float(((high - low) / true / 2).mean())
        gap = fit_gap(draws, 0, 1)
        x = float(np.log(factor * top))
        called = gap.better(x)
        told[f"called{factor}"] = float(called is not None)
        winner = "A" if true[0] < true[1] else "B"
        told[f"wrong{factor}"] = float(called is not None and called != winner)
        said = gap.crossing(x)
        below = law.crossing is not None and law.crossing < factor * top
        told[f"crossing{factor}"] = float(said is not None)
        told[f"there{factor}"] = float(below)
        told[f"inside{factor}"] = float(
            said is not None and below and said[1] <= np.log(law.crossing or 1) <= said[2]
        )
    return told


def rows(options: argparse.Namespace) -> Iterator[str]:
    """A row for each case."""
    yield (
        "| case | holds at 10x | at 100x | half width at 100x | bias at 10x | at 100x | winner at "
        "100x called | of these wrong | crossing called that is there | that isn't | its interval "
        "holds |"
    )
    yield "|---|" + "---|" * 10
    for number, (name, case) in enumerate(CASES.items()):
        if options.only and options.only not in name:
            continue
        rng = np.random.default_rng([number, 25])
        told = [one(case, rng, crosses=k % 2 == 0) for k in range(options.draws)]
        table = {key: np.array([row[key] for row in told]) for key in told[0]}
        there = table["there100"] > 0
        called, calls = table["called100"].sum(), table["crossing100"] > 0
        right = calls & there
        yield (
            f"| {name} | {table['held10'].mean():.1%} | {table['held100'].mean():.1%} | "
            f"{table['width100'].mean():.1%} | {table['bias10'].mean():+.2%} | "
            f"{table['bias100'].mean():+.2%} | {called / len(told):.0%} | "
            f"{table['wrong100'].sum() / max(called, 1):.1%} | {calls[there].mean():.0%} | "
            f"{calls[~there].mean():.1%} | {table['inside100'].sum() / max(right.sum(), 1):.0%} |"
        )


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=200, help="ladders of each case")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    started = time.process_time()
    for line in rows(options):
        print(line, flush=True)
    print(f"\n{time.process_time() - started:.0f} s of processor time")


if __name__ == "__main__":
    main()
