"""Verdicts of simulated ablations: how often chance alone is called a finding, and what is found.

Every case is judged twice: as `compare` judges it, and by a paired t-test of each cell with Holm's
correction, which was used before. Without `--sweeps` all tables of a case are judged at once by the
same functions that `compare` calls; `--check` sends some of them through `compare` itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from strawberry.ablate import alpha_spending
from strawberry.ablate.extra import needs
from strawberry.ablate.noise import RATIO, design, granularity
from strawberry.ablate.null import null_of
from strawberry.ablate.statistics import Comparison, compare, undecided

Numbers: TypeAlias = NDArray[np.float64]
Found: TypeAlias = NDArray[np.bool_]
stats = needs("scipy.stats")
BLOCK = 2.5
"""Deviation of what a seed does to all cells; a cell's own is 1."""
ANSWERS = 160
SHIFT = 4.0
ALPHA = 0.05
EFFECT = 2.0
"""The difference that matters to a sweep that adds seeds, in deviations."""


@dataclass(frozen=True)
class Case:
    """Noise of a kind.

    Attributes:
        deviations: of the cells, by how many there are.
        tail: degrees of freedom of the noise's t distribution; 0 for a normal one.
        scaling: how much more than the baseline each cell takes of a seed's effect.
        accuracy: the chance of an answer to be right, where the metric is a share of 160 answers.
        shifts: differences of the cells; a finding is false where that is 0.
        missing: whether a run of the last cell and one of the baseline are missing.
    """

    deviations: Callable[[int], Numbers] = np.ones
    tail: int = 0
    scaling: Callable[[int], Numbers] = np.zeros
    accuracy: float = 0.0
    shifts: Callable[[int], Numbers] = np.zeros
    missing: bool = False

    def seen(self, cells: int, seeds: int) -> Found:
        """Mask of the values."""
        found = np.ones((cells, seeds), dtype=bool)
        if self.missing and seeds > 2:
            found[-1, 0] = False
        if self.missing and seeds > 3:
            found[0, -1] = False
        return found

    def draw(
        self, rng: np.random.Generator, runs: int, cells: int, seeds: int, shift: Numbers
    ) -> Numbers:
        """Tables: (runs, cells, seeds)."""
        shape = (runs, cells, seeds)
        if self.accuracy:
            return rng.binomial(ANSWERS, self.accuracy, shape) / ANSWERS + shift[:, None]
        noise = rng.standard_normal(shape)
        if self.tail:
            noise = rng.standard_t(self.tail, shape) * np.sqrt((self.tail - 2) / self.tail)
        block = rng.standard_normal((runs, 1, seeds)) * BLOCK
        noise = noise * self.deviations(cells)[:, None] + block * (1 + self.scaling(cells)[:, None])
        return noise + shift[:, None]


def larger(which: str, ratio: float) -> Callable[[int], Numbers]:
    """Deviations where some cells' are `ratio` and the others' 1."""

    def made(cells: int) -> Numbers:
        number = np.arange(cells)
        chosen = {
            "one": number == cells // 2,
            "last": number == cells - 1,
            "baseline": number == 0,
            "odd": number % 2 == 1,
            "even": number % 2 == 0,
            "others": number > 0,
        }[which]
        return np.where(chosen, ratio, 1.0)

    return made


CASES = {
    "equal noise": Case(),
    **{
        f"1:{ratio}, {text}": Case(larger(which, ratio))
        for ratio in (2, 4)
        for which, text in (
            ("one", "one cell"),
            ("baseline", "the baseline"),
            ("odd", "half of the cells"),
            ("even", "half, with the baseline"),
            ("others", "all but the baseline"),
        )
    },
    **{
        f"1:{ratio}, the baseline; all but one differ": Case(
            larger("baseline", ratio), shifts=lambda k: np.where(np.arange(k) > 1, 20.0, 0.0)
        )
        for ratio in (2, 4)
    },
    "heavy tails, t5": Case(tail=5),
    "missing runs": Case(missing=True),
    "missing runs, one cell 1:4": Case(larger("one", 4), missing=True),
    "missing runs, of one cell 1:4": Case(larger("last", 4), missing=True),
    "one cell grows with the block": Case(scaling=lambda k: np.eye(k)[-1]),
    "cells grow with the block": Case(scaling=lambda k: np.linspace(0, 1, k)),
    **{f"160 answers, {100 * p:g} % right": Case(accuracy=p) for p in (0.5, 0.9, 0.98, 0.995)},
}
POWERS = {
    "equal noise": (Case(), 1),
    "1:2, half, the shifted one": (Case(larger("odd", 2)), 1),
    "1:2, half, another": (Case(larger("odd", 2)), 2),
    "1:4, one cell, another": (Case(larger("last", 4)), 1),
    "heavy tails, t5": (Case(tail=5), 1),
}


def pairs(cells: int) -> Numbers:
    """Every cell against the first."""
    return np.hstack([-np.ones((cells - 1, 1)), np.eye(cells - 1)])


def new(values: Numbers, seen: Found, *, accuracy: bool, ratio: float) -> Found:
    """Cells that `compare` would call different: (runs, cells - 1)."""
    made = design(tuple(map(tuple, seen.tolist())), tuple(map(tuple, pairs(len(seen)).tolist())))
    observed = values[:, seen]
    step: Numbers | float = 0.0  # what has no steps has none in a simulation
    if accuracy:
        step = np.array([granularity((row - row[0]).tolist()) for row in observed])
    statistic = made.measure(observed, step=step).statistic
    found: Found = statistic > null_of(made, ratio).critical(ALPHA)
    return found


def old(values: Numbers, seen: Found) -> Found:
    """Cells that a paired t-test finds, by Holm's procedure."""
    gaps = np.where(seen[1:] & seen[0], values[:, 1:] - values[:, :1], np.nan)
    n = np.isfinite(gaps[0]).sum(axis=1)
    mean, deviation = np.nanmean(gaps, axis=2), np.nanstd(gaps, axis=2, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(mean) / (deviation / np.sqrt(n)), n - 1)
    flat = deviation <= 1e-15 * np.maximum(1, np.abs(mean))
    p = np.where(flat, np.where(np.abs(mean) < 1e-12, 1.0, 0.0), p)
    order = np.argsort(p, axis=1)
    ranked = np.take_along_axis(p, order, 1) < ALPHA / (p.shape[1] - np.arange(p.shape[1]))
    found = np.zeros_like(ranked)
    np.put_along_axis(found, order, np.logical_and.accumulate(ranked, axis=1), 1)
    return found


def rates(options: argparse.Namespace) -> Iterator[str]:
    """Rows of false findings: a row for each case and number of seeds."""
    heads = " | ".join(f"{k} cells" for k in options.cells)
    yield f"| any false finding, old / new | seeds | {heads} |"
    yield "|---|---|" + "---|" * len(options.cells)
    for name, case in CASES.items():
        for seeds in options.seeds:
            texts = []
            for cells in options.cells:
                rng = np.random.default_rng([cells, seeds])
                shifts = case.shifts(cells)
                values = case.draw(rng, options.runs, cells, seeds, shifts)
                seen, null = case.seen(cells, seeds), shifts[1:] == 0
                was = old(values, seen)[:, null].any(axis=1).mean()
                now = new(values, seen, accuracy=bool(case.accuracy), ratio=options.ratio)
                texts.append(f"{was:.3f} / {now[:, null].any(axis=1).mean():.3f}")
            yield f"| {name} | {seeds} | {' | '.join(texts)} |"


def powers(options: argparse.Namespace) -> Iterator[str]:
    """Rows of how often one cell's difference of four deviations is found."""
    heads = " | ".join(f"{k} cells" for k in options.cells if k > 2)
    yield f"| 4 deviations found, old / new | seeds | {heads} |"
    yield "|---|---|" + "---|" * sum(k > 2 for k in options.cells)
    for name, (case, place) in POWERS.items():
        for seeds in options.seeds:
            texts = []
            for cells in (k for k in options.cells if k > 2):
                rng = np.random.default_rng([cells, seeds, 1])
                values = case.draw(rng, options.runs, cells, seeds, SHIFT * np.eye(cells)[place])
                seen = case.seen(cells, seeds)
                was = old(values, seen)[:, place - 1].mean()
                now = new(values, seen, accuracy=False, ratio=options.ratio)[:, place - 1].mean()
                texts.append(f"{was:.2f} / {now:.2f}")
            yield f"| {name} | {seeds} | {' | '.join(texts)} |"


def check(options: argparse.Namespace) -> str:
    """Number of tables with the same verdicts from `compare`."""
    agree = total = 0
    for number, case in enumerate(CASES.values()):
        rng = np.random.default_rng(number)
        values = case.draw(rng, options.check, 6, 4, np.zeros(6))
        seen = case.seen(6, 4)
        found = new(values, seen, accuracy=bool(case.accuracy), ratio=options.ratio)
        for table, verdicts in zip(values, found, strict=True):
            made = sent(table, seen, options.ratio)
            agree += [c.verdict in ("better", "worse") for c in made.values()] == verdicts.tolist()
            total += 1
    return f"{agree} of {total} tables have the same verdicts from compare()"


def sent(values: Numbers, seen: Found, ratio: float, looks: int = 1) -> dict[str, Comparison]:
    """A table through `compare`."""
    rows = [
        {s: float(v) for s, v in enumerate(row) if there[s]}
        for row, there in zip(values, seen, strict=True)
    ]
    cells = {str(number): row for number, row in enumerate(rows[1:])}
    return compare(rows[0], cells, effect=EFFECT, looks=looks, ratio=ratio)


def auto(options: argparse.Namespace, most: int = 10, cells: int = 6) -> Iterator[str]:
    """Sweeps that add seeds until all is decided, as `--seeds auto` does."""
    looks, first = alpha_spending.looks_of(most), alpha_spending.FIRST
    yield f"| {cells} cells, {first} to {most} seeds | found something | mean seeds |"
    yield "|---|---|---|"
    for name, shift in (("no difference", 0.0), ("one cell 4 deviations worse", SHIFT)):
        rng = np.random.default_rng(7)
        found, seeds = 0, 0
        for _ in range(options.sweeps):
            values = Case().draw(rng, 1, cells, most, shift * np.eye(cells)[1])[0]
            for n in range(first, most + 1):
                seen = np.ones((cells, n), dtype=bool)
                made = sent(values[:, :n], seen, options.ratio, looks)
                if not undecided(made, EFFECT):
                    break
            # The sweep's last table is the one that is reported.
            found += any(c.verdict in ("better", "worse") for c in made.values())
            seeds += n
        yield f"| {name} | {found} of {options.sweeps} | {seeds / options.sweeps:.1f} |"


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=4000, help="tables of each case and size")
    parser.add_argument("--cells", type=int, nargs="+", default=[2, 3, 4, 6, 8, 12])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5, 8])
    parser.add_argument("--ratio", type=float, default=RATIO)
    parser.add_argument("--check", type=int, default=20, help="tables of each case, by compare()")
    parser.add_argument("--sweeps", type=int, default=1000, help="sweeps of --seeds auto")
    options = parser.parse_args()
    started = time.process_time()
    for part in (rates, powers, auto):
        for line in part(options):
            print(line, flush=True)
        print()
    print(check(options))
    print(f"{time.process_time() - started:.0f} s of processor time")


if __name__ == "__main__":
    main()
