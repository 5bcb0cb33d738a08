"""How far a difference between cells depends on which windows of text it was measured on.

Cells are paired by seed and by row. A difference of losses is a ratio of sums over rows, the nats
by which they differ over their targets. Its standard error as an estimate for other text of this
kind follows from the spread of rows about that ratio (Cochran 1977, section 6.3), summed by
document first, since windows of one document are alike.
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

    None where rows were not kept, are not the same, or are of fewer than two documents and rows.

    Args:
        cell: rows by seed.
        baseline: the same; seeds that both have count.
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
"""Documents from which on they are taken as what was sampled, and not their windows."""


def clustered(
    sums: Numbers, counts: npt.NDArray[np.int64], group: npt.NDArray[np.int64]
) -> float | None:
    """The standard error of `sum(sums) / sum(counts)`, where the rows of a group belong together.

    None of fewer than two groups.
    """
    _, place = np.unique(group, return_inverse=True)
    n = int(place.max()) + 1 if len(place) else 0
    if n < 2:
        return None
    ratio = sums.sum() / counts.sum()
    residuals = np.bincount(place, sums - ratio * counts, minlength=n)
    return math.sqrt(float((residuals**2).sum()) * n / (n - 1)) / float(counts.sum())
