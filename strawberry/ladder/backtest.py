"""Predict the largest runs from the smaller ones, as a test of the fit.

Runs are left out from the top, by compute, by parameters and by tokens; the rest is fitted and
predicts the others. No law of this form is exact, so errors may exceed the fit's intervals. If a
table has enough runs to show that, intervals of sizes beyond the table are widened. They would then
have contained nine in ten of the runs left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strawberry.ladder.draws import draw, interval
from strawberry.ladder.fit import MANY, Fit, fit
from strawberry.ladder.table import Numbers, Runs

COLUMNS: Final = ("training_flops", "parameters", "tokens")
SHARES: Final = (0.5, 0.65, 0.8)
"""Of the runs that are kept, the smallest ones."""
DRAWS: Final = 60
LEFT: Final = 5
"""Runs that must be left out to say how many intervals hold."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """Runs that were left out, and what the rest said of them.

    Attributes:
        column: by which they are the largest.
        limit: the largest that was kept.
        kept: how many runs were fitted.
        left: how many were left out.
        error: the mean of |predicted / trained - 1|.
        bias: the mean of predicted / trained - 1.
        held: the share of 90 % intervals of a run that held its loss.
        units: the distance to the trained loss in half widths of the interval, of each run.
    """

    column: str
    limit: float
    kept: int
    left: int
    error: float
    bias: float
    held: float
    units: Numbers

    @property
    def wider(self) -> float:
        """The factor on the intervals that lets them contain nine in ten."""
        return float(max(1.0, np.quantile(self.units, 0.9)))


def leave_out(done: Fit, kept: NDArray[np.bool_], column: str) -> Backtest:
    """Refit the kept runs with the fit's settings, and predict the left-out ones."""
    rest = done.runs.take(~kept)
    again = fit(done.runs.take(kept), done.law.name, shared=done.law.shared)
    low, high = interval(draw(again, DRAWS).losses(rest))
    off = again.loss(rest) / rest.loss - 1
    units = np.abs(np.log1p(off)) / ((high - low) / 2)
    return Backtest(
        column=column,
        limit=float(done.runs.columns[column][kept].max()),
        kept=int(kept.sum()),
        left=len(rest),
        error=float(np.abs(off).mean()),
        bias=float(off.mean()),
        held=float((units <= 1).mean()),
        units=units,
    )


def backtests(done: Fit) -> list[Backtest]:
    """Every split with enough runs; with few sizes only the one that leaves out the largest."""
    return list(_large(done)) if len(done.runs) >= 2 * MANY else list(_top(done))


def _large(done: Fit) -> Iterator[Backtest]:
    for column in COLUMNS:
        if column not in done.runs.columns:
            continue
        values = done.runs.columns[column]
        for share in SHARES:
            kept = values <= np.quantile(values, share)
            if kept.sum() >= MANY and (~kept).sum() >= LEFT and _all_there(done.runs, kept):
                yield leave_out(done, kept, column)


def _top(done: Fit) -> Iterator[Backtest]:
    """Without each architecture's largest runs by compute."""
    flops = done.runs.flops
    tops = [flops[done.runs.place == place].max() for place in range(len(done.runs.names))]
    kept = flops < 0.99 * np.array(tops)[done.runs.place]
    sizes = done.runs.take(kept).sizes() if kept.any() else np.zeros(0)
    if _all_there(done.runs, kept) and len(np.unique(sizes)) >= 3 * len(done.runs.names):
        yield leave_out(done, kept, "training_flops")


def _all_there(runs: Runs, kept: NDArray[np.bool_]) -> bool:
    return len(np.unique(runs.place[kept])) == len(runs.names)


def widths(done: Fit, tests: list[Backtest], runs: Runs) -> Numbers:
    """The factor on the interval of each of these sizes: (runs,).

    That of the columns in which a size is beyond the largest fitted run; 1 of what is not.
    """
    wider = np.ones(len(runs))
    for test in tests:
        if test.left >= LEFT and test.kept >= MANY:
            beyond = runs.columns[test.column] > done.runs.columns[test.column].max()
            wider = np.where(beyond, np.maximum(wider, test.wider), wider)
    return wider
