"""Forecast what numbers of seeds can detect, and their time, from known noise.

The noise comes from finished trials of this sweep or of an earlier one. A number of seeds `finds`
the difference that its table would detect with a chance of 80 %, as in `detectable`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strawberry.ablate import alpha_spending
from strawberry.ablate.factors import asked, grid
from strawberry.ablate.known import Noise
from strawberry.ablate.noise import RATIO, Design
from strawberry.ablate.null import null_of
from strawberry.ablate.statistics import LEAST
from strawberry.errors import StrawberryError

if TYPE_CHECKING:
    from strawberry.ablate.preparing import PreparedPlan

OTHERS = (3, 5, 8)
"""Numbers of seeds that are shown in addition to the requested one."""
DRAWN = 12
"""Number of seeds up to which tables are simulated; beyond it, the difference scales with
1/sqrt(seeds).
"""
MOST = 1000
"""Largest number of seeds that is shown."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A difference to detect: in the metric's unit, or relative to the baseline."""

    value: float
    share: bool = False

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """Parse `0.02`, or `1%`; raises StrawberryError for anything else."""
        number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
        try:
            value = float(number) / (100 if percent else 1)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise StrawberryError(
                f"--find: expected a difference above 0, such as 0.02 or 1%, got {text!r}"
            )
        return cls(value, percent)


@dataclass(frozen=True, slots=True)
class Prospect:
    """The result of a number of seeds.

    Attributes:
        seeds: number for each cell.
        finds: the difference from the baseline that is detected with a chance of 80 %.
        factors: the same for each factor of a grid, over all levels of the others.
        seconds: time to train the missing trials.
    """

    seeds: int
    finds: float
    factors: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predict what the requested seeds, and other numbers of seeds, can detect.

    Attributes:
        metric: the metric, in whose unit differences are.
        asked: number of seeds; None if seeds are added until all is decided.
        most: maximum number of seeds if they are added; else None.
        wanted: the difference to detect.
        matters: whether that is the plan's `effect` rather than a given one.
        needed: seeds that detect it; None if more than 1,000.
        needed_seconds: time to train the missing trials of these.
    """

    noise: Noise
    metric: str
    asked: int | None
    prospects: tuple[Prospect, ...]
    most: int | None
    wanted: float
    matters: bool
    needed: int | None
    needed_seconds: float | None


def planned(prepared: PreparedPlan) -> list[dict[str, Any]]:
    """The runnable cells, in the form of a record."""
    return [
        {
            "name": cell.name,
            "patch": dict(cell.patch),
            "budget": prepared.budgets[cell.name].to_dict(),
        }
        for cell in prepared.live
    ]


def forecast(
    plan: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    noise: Noise,
    *,
    slots: int,
    done: Mapping[str, int] | None = None,
    wanted: Wanted | None = None,
) -> Forecast:
    """Forecast what seeds can detect, from the noise.

    Args:
        plan: the plan, in the form of `Plan.to_dict`.
        cells: the compared cells, baseline first, in the form of records.
        noise: noise of a run.
        slots: number of concurrent trials.
        done: number of finished trials of each cell.
        wanted: the difference to detect; None takes the plan's `effect`.
    """
    matters, wanted = wanted is None, wanted or Wanted(plan["effect"], share=True)
    goal = wanted.value * (abs(noise.baseline) if wanted.share else 1.0)
    seeds = plan["seeds"]
    most = plan["max_seeds"] if seeds is None else MOST
    numbers = sorted({n for n in (*OTHERS, seeds or most) if n <= most})

    def seconds(number: int) -> float:
        left = ((number - (done or {}).get(cell["name"], 0), cell) for cell in cells)
        return sum(max(0, n) * noise.trial(cell) for n, cell in left) / slots

    def finds(number: int) -> float:
        return noise.deviation * _finds(plan, cells, number)[""]

    prospects = []
    for n in numbers:
        parts = {name: noise.deviation * part for name, part in _finds(plan, cells, n).items()}
        prospects.append(Prospect(n, parts.pop(""), parts, seconds(n)))
    needed = _needed(goal, finds)
    return Forecast(
        noise=noise, metric=plan["metric"], asked=seeds, prospects=tuple(prospects),
        most=plan["max_seeds"] if seeds is None else None, wanted=goal, matters=matters,
        needed=needed, needed_seconds=None if needed is None else seconds(needed),
    )  # fmt: skip


def _needed(goal: float, finds: Callable[[int], float]) -> int | None:
    """The smallest number of seeds that detects the difference."""
    if finds(DRAWN) > goal:
        more = math.ceil(DRAWN * (finds(DRAWN) / goal) ** 2)
        return more if more <= MOST else None
    return next(n for n in range(LEAST, DRAWN + 1) if finds(n) <= goal)


def _finds(
    plan: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], seeds: int
) -> dict[str, float]:
    """The detected difference, in deviations of a run: under "" the baseline's, and by factor."""
    drawn = min(seeds, DRAWN)
    scale = math.sqrt(drawn / seeds)
    level = plan["alpha"]
    if plan["seeds"] is None:
        looks = alpha_spending.looks_of(plan["max_seeds"])
        level = alpha_spending.levels(looks, level)[alpha_spending.look_at(seeds, looks)]
    how = (drawn, float(plan.get("noise_ratio", RATIO)), level)
    size = len(cells)
    rows = [[-1.0, *(float(c == n) for c in range(1, size))] for n in range(1, size)]
    differences = {"": max(_detectable(size, _frozen(rows), *how), default=math.inf) * scale}
    values = {cell["name"]: dict.fromkeys(range(drawn), 0.0) for cell in cells}
    factorial = grid(plan, cells, values)
    if factorial is None:
        return differences
    questions = asked(factorial, "main")
    parts = _detectable(len(factorial.cells), _frozen([row for *_, row in questions]), *how)
    for (factors, _, _), part in zip(questions, parts, strict=True):
        name = list(factorial.levels)[factors[0]].rsplit(".", 1)[-1]
        differences[name] = max(differences.get(name, 0.0), part * scale)
    return differences


def _frozen(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, rows))


@functools.lru_cache(maxsize=256)
def _detectable(
    cells: int, rows: tuple[tuple[float, ...], ...], seeds: int, ratio: float, level: float
) -> tuple[float, ...]:
    """The difference that each question of a whole table detects, in deviations of a run."""
    if seeds < LEAST or cells < LEAST:
        return (math.inf,) * len(rows)
    null = null_of(Design(((True,) * seeds,) * cells, rows), ratio)
    return tuple(null.detectable(number, level) for number in range(len(rows)))
