"""Spending of alpha over the looks at a table while seeds are added.

Uses Pocock's spending function (Lan and DeMets 1983): at a share t of the seeds, alpha * log(1 + (e
- 1) t) is spent. The level of each look follows from the joint distribution of the statistics of
all looks (Armitage, McPherson and Rowe 1969). They are normal; the level is applied to p-values.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from strawberry.ablate.extra import needs

FIRST = 3
"""Seeds at the first look; each later look has one more."""
GRID = 301


def looks_of(max_seeds: int) -> int:
    """How often a table is looked at while seeds are added, up to `max_seeds`."""
    return max_seeds - FIRST + 1


def look_at(seeds: int, looks: int) -> int:
    """The number of the look, from 0, at a table of so many seeds."""
    return min(max(seeds - FIRST, 0), looks - 1)


@functools.lru_cache(maxsize=256)
def levels(looks: int, alpha: float) -> tuple[float, ...]:
    """The two-sided level of each look; with these, the chance of any false pass is `alpha`."""
    if looks <= 1:
        return (alpha,)
    normal = needs("scipy.stats").norm
    seeds = np.arange(FIRST, FIRST + looks)
    spent = alpha * np.log1p((math.e - 1) * seeds / seeds[-1])
    grid = np.linspace(-1, 1, GRID)
    places, density = np.zeros(1), np.ones(1)  # of the running sum, if no earlier look passed
    thresholds: list[float] = []
    for look, n in enumerate(seeds):
        scale = math.sqrt(n if look == 0 else 1)
        allowed = spent[look] - (spent[look - 1] if look else 0.0)
        bound = needs("scipy.optimize").brentq(
            lambda x, p=places, d=density, s=scale, a=allowed: (
                float(d @ (normal.sf((x - p) / s) + normal.cdf((-x - p) / s))) - a
            ),
            0.0, 50.0 * math.sqrt(n),
        )  # fmt: skip
        thresholds.append(float(2 * normal.sf(bound / math.sqrt(n))))
        wider = grid * bound
        weights = np.full(GRID, wider[1] - wider[0])  # the trapezoidal rule
        weights[[0, -1]] /= 2
        density = (normal.pdf((wider[:, None] - places) / scale) / scale) @ density * weights
        places = wider
    return tuple(thresholds)


def adjusted(p: float, look: int, looks: int) -> float:
    """The smallest alpha at which a p-value of this look (from 0) would pass its level.

    By interpolation between alphas from 1e-6 to 0.955, so no result is below 1e-6.
    """
    if looks <= 1 or not 0 < p < 1:
        return p
    known = [10.0**-power for power in np.linspace(6, 0.02, 25)]
    level = [levels(looks, alpha)[look] for alpha in known]
    interpolated = float(np.exp(np.interp(np.log(p), np.log(level), np.log(known))))
    return interpolated if p <= level[-1] else 1.0
