"""Dependence of a difference between cells on the windows of text.

Cells are paired by seed and row. A difference of losses is a ratio of sums over rows: nats by which
they differ, over targets. Its standard error for other text of this kind follows from the spread of
rows around that ratio (Cochran 1977, section 6.3). Rows are summed by document first, because
windows of one document are alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from strawberry.ablate.noise import Numbers
from strawberry.training.items import RowLosses


def windows_error(cell: Mapping[int, RowLosses], baseline: Mapping[int, RowLosses]) -> float | None:
    """The standard error of a mean difference over seeds, from its rows.

    None if rows were not kept, differ, or come from fewer than two documents and rows.

    Args:
        cell: rows by seed.
        baseline: the same for the baseline; shared seeds count.
    """
    seeds = sorted(cell.keys() & baseline.keys())
    if not seeds:
        return None
    first = baseline[seeds[0]]
    if not all(side[seed].same_rows(first) for side in (cell, baseline) for seed in seeds):
        return None
    gaps = np.mean([cell[seed].nats - baseline[seed].nats for seed in seeds], axis=0)
    counted = first.targets > 0
    group = first.group[counted]
    if len(np.unique(group)) < FEWEST:  # hardly a document: its windows stand for themselves
        group = np.arange(len(group))
    return clustered(gaps[counted], first.targets[counted], group)


FEWEST = 10
"""Number of documents from which on documents, not windows, are the sampling unit."""


def clustered(
    sums: Numbers, counts: npt.NDArray[np.int64], group: npt.NDArray[np.int64]
) -> float | None:
    """The standard error of `sum(sums) / sum(counts)` for grouped rows.

    None with fewer than two groups.
    """
    _, place = np.unique(group, return_inverse=True)
    n = int(place.max()) + 1 if len(place) else 0
    if n < 2:
        return None
    ratio = sums.sum() / counts.sum()
    residuals = np.bincount(place, sums - ratio * counts, minlength=n)
    return math.sqrt(float((residuals**2).sum()) * n / (n - 1)) / float(counts.sum())
