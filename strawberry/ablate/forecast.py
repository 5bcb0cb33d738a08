"""What numbers of seeds will be able to show, and how long they take, from the noise that is known.

The noise is that of finished trials: of the same sweep, or of an earlier one. A number of seeds
`finds` the difference that its table would show with a chance of 80 %, as `detectable` has it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strawberry.ablate import looks as sequential
from strawberry.ablate.factors import asked, grid
from strawberry.ablate.known import Noise
from strawberry.ablate.noise import RATIO, Design
from strawberry.ablate.null import null_of
from strawberry.ablate.statistics import LEAST
from strawberry.errors import StrawberryError

if TYPE_CHECKING:
    from strawberry.ablate.preparing import PreparedPlan

OTHERS = (3, 5, 8)
"""Numbers of seeds that are told beside the one that is asked for."""
DRAWN = 12
"""Seeds up to which tables are drawn; beyond, a difference goes with the root of the number."""
MOST = 1000
"""Beyond it a number of seeds is not told."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A difference that shall be found: in the metric's unit, or as a share of the baseline."""

    value: float
    share: bool = False

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """`0.02`, or `1%`; raises StrawberryError for anything else."""
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
    """What a number of seeds finds.

    Attributes:
        seeds: of each cell.
        finds: the difference from the baseline that is found with a chance of 80 %.
        factors: the same for each factor of a grid, over all levels of the others.
        seconds: to train what of it is not trained yet.
    """

    seeds: int
    finds: float
    factors: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the seeds asked for will be able to show, and what others would.

    Attributes:
        metric: in whose unit differences are.
        asked: seeds; None if they are added until all is decided.
        most: seeds at which adding them ends; None if they are not added.
        wanted: the difference that shall be found.
        matters: whether that is the one that matters; else it was named.
        needed: seeds that find it; None if that are more than 1,000.
        needed_seconds: to train what of these is not trained yet.
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
    """The cells that can be run, as a record has them."""
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
    """What seeds will be able to show, by a noise.

    Args:
        plan: as `Plan.to_dict` has it.
        cells: those that are compared, baseline first, as records have them.
        noise: of a run.
        slots: trials at once.
        done: finished trials of each cell.
        wanted: the difference that shall be found; the plan's `effect` if it is None.
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
    """The least number of seeds that finds the difference."""
    if finds(DRAWN) > goal:
        more = math.ceil(DRAWN * (finds(DRAWN) / goal) ** 2)
        return more if more <= MOST else None
    return next(n for n in range(LEAST, DRAWN + 1) if finds(n) <= goal)


def _finds(
    plan: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], seeds: int
) -> dict[str, float]:
    """What is found, in deviations of a run: under "" against the baseline, and by factor."""
    drawn = min(seeds, DRAWN)
    scale = math.sqrt(drawn / seeds)
    level = plan["alpha"]
    if plan["seeds"] is None:
        looks = plan["max_seeds"] - sequential.FIRST + 1
        look = min(max(seeds - sequential.FIRST, 0), looks - 1)
        level = sequential.levels(looks, level)[look]
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
    """What each question finds in a whole table, in deviations of a run."""
    if seeds < LEAST or cells < LEAST:
        return (math.inf,) * len(rows)
    null = null_of(Design(((True,) * seeds,) * cells, rows), ratio)
    return tuple(null.detectable(number, level) for number in range(len(rows)))
