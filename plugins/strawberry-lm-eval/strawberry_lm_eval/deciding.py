"""Tasks by how well small models decide them.

A task decides well if the better of two models at a small size is the better one at a large size
too. Shares of right decisions from 150M to 1B: Heineman et al. 2025, "Signal and Noise" (arXiv
2508.13144). BLiMP (Warstadt et al. 2020, arXiv 1912.00582) has minimal pairs, which models of a few
million parameters tell apart already.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decides:
    """A task or group of the harness.

    Attributes:
        name: its name in the harness.
        least: parameters from which on it tells models apart.
        most: parameters up to which it does; None for all.
        decides: share of right decisions from 150M to 1B; None if unknown.
        asks: what it asks.
    """

    name: str
    least: int
    most: int | None
    decides: float | None
    asks: str


TASKS = (
    Decides("blimp", 10**6, 10**8, None, "which of two sentences is grammatical"),
    Decides("arc_easy", 150 * 10**6, None, 0.93, "science questions with four choices"),
    Decides("hellaswag", 150 * 10**6, None, 0.74, "which of four endings follows"),
    Decides("winogrande", 10**9, None, 0.50, "whom a pronoun means; a coin at 150M"),
)
"""Tasks with figures, from the smallest models on."""


def suggested(parameters: int) -> tuple[Decides, ...]:
    """The tasks for a model of this size; those of the smallest models below all of them."""
    fit = tuple(
        task
        for task in TASKS
        if task.least <= parameters and (task.most is None or parameters <= task.most)
    )
    return fit or TASKS[:1]
