"""Campaigns of simulated ablations: how often chance is kept once, and what is found when.

Proposals are judged one after the other, each against the same baseline with the same seeds, with
the calls of a sweep: the ledger's next question, `compare` at its share of alpha, the recorded
noise. Values are drawn, not trained; the ledger is in memory. `--rules` compares spending rules of
alpha, without a ledger.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from strawberry.ablate.campaign import FIRST, Question, answer, ask, prior_of, share
from strawberry.ablate.extra import needs
from strawberry.ablate.noise import Prior, design
from strawberry.ablate.null import null_of
from strawberry.ablate.spread import residual
from strawberry.ablate.statistics import compare
from strawberry.runs.ledger import Ledger

Numbers: TypeAlias = NDArray[np.float64]
ALPHA = 0.05
BLOCK = 2.5
"""Deviation of what a seed does to all cells; a run's own is 1."""
PLACES = (1, 2, 3, 5, 10, 20, 50, 100, 150, 200)
"""Numbers of the better proposals."""


class Memory(Ledger):
    """A ledger that is never written: half of a campaign's time would go to its file."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.entries: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes."""
        yield

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """All entries, none of them damaged."""
        return list(self.entries), 0

    def add(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Add an entry."""
        self.entries.append({"kind": kind, **fields, "when": "now"})
        return self.entries[-1]


def campaign(rng: np.random.Generator, args: argparse.Namespace, shifts: Numbers) -> list[str]:
    """The verdict of each proposal, in order; `shifts` is what each does to the loss."""
    ledger = Memory()
    block = rng.standard_normal(args.seeds) * BLOCK
    baseline = dict(enumerate(block + _noise(rng, args)))
    verdicts: list[str] = []
    for place, shift in enumerate(shifts):
        deviation = np.exp(args.unlike * rng.standard_normal())
        deviation *= args.noisier if place % 2 else 1.0
        values = block + shift + deviation * _noise(rng, args)
        cells = {"proposal": dict(enumerate(values))}
        question = Question("text", f"{place}", f"{args.seeds}", 1, "regime")
        entry = ask(ledger, "main", question)
        compared = compare(
            baseline,
            cells,
            effect=args.shift,
            alpha=ALPHA * entry["share"],
            prior=prior_of(entry),
        )
        noise, freedom = residual({"recipe": baseline, **cells})
        assert noise is not None
        verdict = compared["proposal"].verdict
        decided = verdict in ("better", "worse")
        answer(ledger, entry, question, (noise**2, freedom), decided=decided)
        verdicts.append(verdict)
    return verdicts


def _noise(rng: np.random.Generator, args: argparse.Namespace) -> Numbers:
    """That of each seed's run, of deviation 1: normal, or with heavy tails."""
    if not args.tails:
        return rng.standard_normal(args.seeds)
    return rng.standard_t(args.tails, args.seeds) / np.sqrt(args.tails / (args.tails - 2))


def campaigns(args: argparse.Namespace, *, planted: bool) -> list[list[str]]:
    """The verdicts of many campaigns."""
    shifts = np.zeros(args.proposals)
    if planted:
        shifts[[place - 1 for place in PLACES if place <= args.proposals]] = -args.shift
    every = []
    count = args.planted if planted else args.campaigns
    for number in range(args.first, args.first + count):
        rng = np.random.default_rng([number, planted])
        every.append(campaign(rng, args, shifts))
    return every


def rules() -> dict[str, Callable[[Numbers], Numbers]]:
    """Shares of alpha by a question's number."""
    zeta = needs("scipy.special").zeta

    def half_first(power: float) -> Callable[[Numbers], Numbers]:
        return lambda k: np.where(k == 1, FIRST, (1 - FIRST) * k**-power / (zeta(power) - 1))

    def logarithmic(k: Numbers) -> Numbers:
        n = np.arange(2, 10**6)
        total = (1 / (n * np.log(n) ** 2)).sum() + 1 / np.log(10**6)
        wide = np.maximum(k, 2)
        return np.where(k == 1, FIRST, (1 - FIRST) / (total * wide * np.log(wide) ** 2))

    return {
        "6 / (pi k)^2": lambda k: 6 / np.pi**2 / k**2,
        "k^-1.4": lambda k: k**-1.4 / zeta(1.4),
        "half, then k^-1.1": half_first(1.1),
        "half, then k^-1.3 (chosen)": half_first(1.3),
        "half, then 1 / (k log^2 k)": logarithmic,
        "half, then the rest over 200": lambda k: np.where(k == 1, FIRST, (1 - FIRST) / 199),
        "all of alpha each (no correction)": np.ones_like,
    }


def found_by(rule: Callable[[Numbers], Numbers], args: argparse.Namespace) -> list[float]:
    """The share of planted proposals that are found at each place."""
    table = design(((True,) * args.seeds,) * 2, ((-1.0, 1.0),))
    values = np.random.default_rng(1).standard_normal((20_000, 2 * args.seeds))
    values[:, args.seeds :] -= args.shift
    rates = []
    for place in PLACES:
        freedom = 2 ** int(np.log2(max(1, (args.seeds - 1) * (place - 1) / 2)))
        prior = Prior(1.0, freedom) if place > 4 else None  # `fit` asks for four
        alpha = ALPHA * float(rule(np.array(float(place))))
        critical = null_of(table, prior=prior).critical(alpha)[0]
        measured = table.measure(values, prior)
        rates.append(float((-measured.difference > critical * measured.error)[:, 0].mean()))
    return rates


def _line(name: str, numbers: Sequence[float]) -> str:
    return f"| {name} | {' | '.join(f'{number:.2f}' for number in numbers)} |"


def main() -> None:
    """Print how often a campaign keeps chance, and what is found at which place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first campaign")
    parser.add_argument("--planted", type=int, default=100, help="campaigns with better proposals")
    parser.add_argument("--proposals", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shift", type=float, default=2.0, help="of what is planted, deviations")
    parser.add_argument("--unlike", type=float, default=0.0, help="deviation of the noises' logs")
    parser.add_argument("--noisier", type=float, default=1.0, help="of every second proposal")
    parser.add_argument("--tails", type=float, default=0.0, help="freedom of a t, for heavy tails")
    parser.add_argument("--rules", action="store_true", help="compare ways to spend alpha")
    args = parser.parse_args()
    began = time.process_time()
    if args.rules:
        print(f"| share of question k | {' | '.join(map(str, PLACES))} |")
        print("|---" * (len(PLACES) + 1) + "|")
        for name, rule in rules().items():
            print(_line(name, found_by(rule, args)))
        return
    verdicts = campaigns(args, planted=False)
    kept = sum("better" in found for found in verdicts)
    either = sum("better" in found or "worse" in found for found in verdicts)
    n = args.campaigns
    print(f"{n} campaigns of {args.proposals} proposals that change nothing, {args.seeds} seeds:")
    print(f"  {kept} kept one ({kept / n:.3f}); {either} found one better or worse "
          f"({either / n:.3f}); alpha {ALPHA:g}")  # fmt: skip
    print(f"  {time.process_time() - began:.0f} s of processor time", flush=True)
    print(f"  shares of alpha: {', '.join(f'{k}: {share(k):.2g}' for k in PLACES)}")
    if not args.planted:
        return
    verdicts = campaigns(args, planted=True)
    places = [place for place in PLACES if place <= args.proposals]
    rates = [
        sum(found[place - 1] == "better" for found in verdicts) / max(1, args.planted)
        for place in places
    ]
    print(f"| {args.shift:g} deviations better, at place | {' | '.join(map(str, places))} |")
    print(_line("found", rates))
    print(f"{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
