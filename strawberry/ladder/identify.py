"""Check that runs determine the parameters of a law, and find faulty runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from strawberry.ladder.draws import Draws, interval
from strawberry.ladder.fit import MANY
from strawberry.ladder.table import Runs

ALIKE: Final = 0.97
"""Correlation of ln N and ln D from which on their effects are not distinguishable."""
TOLD: Final = 0.5
"""Runs say little of a parameter whose deviation is more than this share of what was expected."""
NORMAL: Final = 3.29
"""The width of a normal distribution's 90 % interval, in deviations."""
SIZES: Final = 6
"""Minimum number of sizes for distinguishing N and D."""


def law_for(runs: Runs) -> tuple[str, str]:
    """The law that a table allows, and why it is that one."""
    alone = len(runs.names) == 1 and "tokens" in runs.columns
    if runs.recursive and alone and np.unique(runs.columns["steps"]).size > 1:
        return "recursion", "the table says what is recurred"
    if "parameters" not in runs.columns or "tokens" not in runs.columns:
        return "compute", "the table says compute alone"
    for place, name in enumerate(runs.names):
        mine = runs.take(runs.place == place)
        logs = np.log([mine.columns["parameters"], mine.columns["tokens"]])
        sizes = len(np.unique(mine.sizes()))
        who = f" of {name}" if len(runs.names) > 1 else ""
        if sizes < SIZES:
            return "compute", f"{sizes} sizes{who} can't give five numbers"
        if min(np.ptp(logs, axis=1)) < 1e-3 or abs(np.corrcoef(logs)[0, 1]) > ALIKE:
            return (
                "compute",
                f"parameters and tokens{who} grow together, so their effects are not "
                "distinguishable",
            )
    return "size_and_tokens", "parameters and tokens differ from each other"


def untold(draws: Draws) -> list[str]:
    """The parameters of which the runs say little: those that stay about what was expected."""
    law = draws.fit.law
    low, high = interval(draws.vectors)
    wide = (high - low) / NORMAL > TOLD * law.spread
    return [label for label, unknown in zip(law.labels, wide, strict=True) if unknown]


def notes(draws: Draws) -> Iterator[str]:
    """Warnings about a fit, in sentences."""
    fit = draws.fit
    sizes, size = len(np.unique(fit.runs.sizes())), fit.law.size
    if sizes < size:
        yield (
            f"{sizes} sizes can't give {size} numbers: what they don't say is as in the "
            "literature, and the intervals have that in them."
        )
    unknown = untold(draws)
    if unknown:
        yield f"These runs say little of {', '.join(unknown)}."
    if fit.minima > fit.noise:
        yield "Starts ended at unlike curves that fit equally well."
    if fit.outliers.any():
        yield (
            f"{int(fit.outliers.sum())} of {len(fit.outliers)} runs lie more than 6 deviations "
            "from the curve and were left out of it."
        )
    if len(fit.runs) < MANY and fit.noise > 0.02:
        yield f"The runs scatter by {fit.noise:.1%} about the curve, far more than seeds do."
