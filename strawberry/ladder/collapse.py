"""Loss curves of all rungs, laid over each other: a rung that is badly tuned lies beside the rest.

Runs that are trained well at every size have the same curve in shares: of the steps, and of the
loss above the floor that is gone (Qiu et al. 2025, arXiv 2507.02119). A rung whose learning rate
suits it less falls off early or late.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from strawberry.ablate.record import TrialRecord
from strawberry.ladder.record import METRIC
from strawberry.ladder.table import Numbers

SHARES: Final = (0.25, 0.5, 0.75)
"""Of the steps, where curves are compared; rungs are evaluated there."""
FAR: Final = 4.0
"""Deviations of seeds that a rung may be off what the others lead to."""
LEAST: Final = 0.02
"""What a curve may be off in any case, as a share of the loss above the floor at its end."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A rung's curve: the loss above the floor at shares of the steps, over that at the end.

    Attributes:
        rung: its number.
        values: by seed and share: (seeds, shares).
    """

    rung: int
    values: Numbers


def shape_of(rung: int, trials: Sequence[TrialRecord], floor: float) -> Shape | None:
    """The shape of a rung's curves; None where they weren't evaluated there."""
    rows = [curve for trial in trials if (curve := _curve(trial.rows(), floor)) is not None]
    return Shape(rung, np.array(rows)) if rows else None


def _curve(rows: Sequence[Mapping[str, Any]], floor: float) -> Numbers | None:
    """A run's loss above the floor at the shares, over that at its end."""
    known = [(row["step"], row[METRIC]) for row in rows if METRIC in row]
    if len(known) <= len(SHARES):
        return None
    steps, losses = np.array(known, dtype=np.float64).T
    above = losses - floor
    if above.min() <= 0:
        return None
    at = np.interp(np.array(SHARES) * steps[-1], steps, np.log(above))
    return np.asarray(np.exp(at - np.log(above[-1])))


def badly_tuned(shapes: Sequence[Shape], logs: Sequence[float]) -> Iterator[tuple[int, float]]:
    """The rungs whose curves don't lie on the others', with how far they are off.

    A rung is held against a line through the others over ln of the compute; what seeds scatter is
    taken from all rungs together.

    Args:
        shapes: of all rungs of an architecture.
        logs: ln of each one's compute.
    """
    left = list(range(len(shapes)))
    means = np.array([shape.values.mean(axis=0) for shape in shapes])
    noise = max(LEAST, _scatter(shapes))
    while len(left) >= 4:  # the worst first: it bends the lines that the others are held against
        off = {one: means[one] - _led_to(one, left, means, np.array(logs)) for one in left}
        worst = max(left, key=lambda one: float(np.abs(off[one]).max()))
        if np.abs(off[worst]).max() <= FAR * noise:
            return
        yield shapes[worst].rung, float(off[worst][np.abs(off[worst]).argmax()])
        left.remove(worst)


def _led_to(one: int, left: Sequence[int], means: Numbers, logs: Numbers) -> Numbers:
    """The curve that a line through the others leads to: (shares,)."""
    others = [other for other in left if other != one]
    line = np.polynomial.polynomial.polyfit(logs[others], means[others], 1)
    return np.asarray(np.polynomial.polynomial.polyval(logs[one], line))


def _scatter(shapes: Sequence[Shape]) -> float:
    """The deviation of seeds about their rung's mean curve; 0 of single seeds."""
    freedom = sum((len(shape.values) - 1) * shape.values.shape[1] for shape in shapes)
    within = sum(float(((s.values - s.values.mean(axis=0)) ** 2).sum()) for s in shapes)
    return float(np.sqrt(within / freedom)) if freedom else 0.0
