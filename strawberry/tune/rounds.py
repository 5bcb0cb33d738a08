"""How many trials of which length a budget allows: successive halving.

Each round trains twice as long as the one before, with half as many settings, so that all rounds
take the same time (Jamieson and Talwalkar 2016, arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

MOST, FEWEST = 5, 2
"""Numbers of rounds: 32 settings at the start, or 4."""
ENOUGH: Final = 0.5
"""Share of a run from which on more settings are worth more than longer trials."""
LEAST: Final = 20
"""Fewest steps of a trial."""
DEARER: Final = 1.25
"""What a sequence may cost in a larger batch, as a factor."""


@dataclass(frozen=True, slots=True)
class TrialCost:
    """What a trial takes, in seconds.

    Attributes:
        run: of training, for as many steps as the recipe has.
        start: of everything else: its start and its evaluation.
    """

    run: float
    start: float

    def of(self, rounds: Sequence[Round]) -> float:
        """The seconds of all trials of these rounds, one after another."""
        return sum(each.count * (each.share * self.run + self.start) for each in rounds)


@dataclass(frozen=True, slots=True)
class Round:
    """Trials of the same length.

    Attributes:
        count: how many there are.
        share: of a whole run's steps.
    """

    count: int
    share: float


def plan(seconds: float, cost: TrialCost, steps: int) -> list[Round]:
    """The rounds for a budget; as many as still end with half a run, or with trials of 20 steps.

    There are none if not even the fewest fit.

    Args:
        seconds: the budget, over all slots.
        cost: of the recipe's trials.
        steps: the recipe's.
    """
    fitting = [fitted(_halving(number), cost, seconds) for number in range(MOST, FEWEST - 1, -1)]
    for least in (ENOUGH, 0.0):
        for rounds in fitting:
            long = bool(rounds) and rounds[0].share * steps >= min(LEAST, steps)
            if long and rounds[-1].share >= least:
                return rounds
    return []


def needed(cost: TrialCost, steps: int) -> float:
    """Seconds, over all slots, of the shortest search."""
    share = min(1.0, LEAST / steps)
    return cost.of([Round(4, share), Round(2, min(1.0, 2 * share))])


def _halving(number: int) -> list[Round]:
    """So many rounds, the last of two whole runs."""
    return [Round(2 ** (number - i), 2.0 ** (i + 1 - number)) for i in range(number)]


def fitted(rounds: Sequence[Round], cost: TrialCost, seconds: float) -> list[Round]:
    """The rounds, all shortened by one factor where they take longer; none if nothing is left."""
    idle = sum(each.count for each in rounds) * cost.start
    training = cost.of(rounds) - idle
    factor = min(1.0, (seconds - idle) / training)
    return [replace(each, share=each.share * factor) for each in rounds] if factor > 0 else []


def plausible(seconds: Mapping[int, float], own: int) -> dict[int, float]:
    """Seconds of a step by batch size, bounded by what a larger batch can cost.

    A larger batch takes no less time, and at most a quarter more for each of its sequences. What
    lies outside is the work of other programs during a measurement.

    Args:
        seconds: as measured.
        own: the batch size that the others are compared with, outward from it.
    """
    bounded = {own: seconds[own]}
    last = own
    for size in sorted(size for size in seconds if size > own):
        low, high = bounded[last], bounded[last] * DEARER * size / last
        bounded[size], last = min(max(seconds[size], low), high), size
    last = own
    for size in sorted((size for size in seconds if size < own), reverse=True):
        low, high = bounded[last] * size / last / DEARER, bounded[last]
        bounded[size], last = min(max(seconds[size], low), high), size
    return bounded
