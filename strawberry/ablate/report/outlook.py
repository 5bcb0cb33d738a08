"""A forecast in words."""

from __future__ import annotations

import math

from strawberry.ablate.forecast import DRAWN, MOST, Forecast, Prospect
from strawberry.ablate.report.numbers import number, span
from strawberry.ablate.statistics import LEAST

UNKNOWN = (
    "What these seeds will be able to show is told once two of each cell are in; --noise-from "
    "FOLDER takes the noise of an earlier sweep."
)


def lines(made: Forecast) -> list[str]:
    """The noise, what numbers of seeds find, and how many the wanted difference takes."""
    noise, whats = made.noise, ["a difference from the baseline of "]
    each = [_finds(p, whats.pop() if whats and p.seeds >= LEAST else "") for p in made.prospects]
    found = [
        f"Noise of a run in {made.metric}: {number(noise.deviation)} (95 %: {number(noise.low)} to "
        f"{number(noise.high)}, {noise.freedom} degree{'s' * (noise.freedom > 1)} of freedom), "
        f"by {noise.source}.",
        f"With a chance of 80 %, {'; '.join(each)}.",
    ]
    for factor in made.prospects[-1].factors:
        known = [p for p in made.prospects if p.seeds >= LEAST]
        each = [f"{p.seeds} find {number(p.factors[factor])}" for p in known]
        found.append(f"For {factor}, over all levels of the other factors: {'; '.join(each)}.")
    return [*found, _needs(made)]


def dry(made: Forecast | None) -> list[str]:
    """A forecast before anything has run, or why there is none."""
    return lines(made) if made is not None else [UNKNOWN]


def _finds(prospect: Prospect, what: str) -> str:
    """`3 find 0.0300 (in 41 min)`."""
    if prospect.seeds < LEAST:
        return f"{prospect.seeds} seed finds no difference"
    seeds = " seeds" if what else ""
    time = f" ({span(prospect.seconds)})" if math.isfinite(prospect.seconds) else ""
    return f"{prospect.seeds}{seeds} find {what}{number(prospect.finds)}{time}"


def _needs(made: Forecast) -> str:
    """How many seeds the wanted difference takes."""
    what = "which would matter, " if made.matters else ""
    text = f"To find a difference of {number(made.wanted)}, {what}takes "
    if made.needed is None:
        return f"{text}more than {MOST:,} seeds."
    seconds = made.needed_seconds
    time = "" if seconds is None or not math.isfinite(seconds) else f" ({span(seconds)})"
    over = made.most is not None and made.needed > made.most
    about = "about " if made.needed > DRAWN else ""
    return f"{text}{about}{made.needed} seeds{time}{f'; max_seeds is {made.most}' if over else ''}."
