"""A forecast in words."""

from __future__ import annotations

import math

from strawberry.ablate.forecast import DRAWN, MOST, Forecast, Prospect
from strawberry.ablate.statistics import LEAST
from strawberry.figures import number, span

UNKNOWN = (
    "Two finished seeds of each cell will show what these seeds can detect; "
    "--noise-from FOLDER takes the noise of an earlier sweep."
)


def lines(forecast: Forecast) -> list[str]:
    """The noise, what numbers of seeds detect, and the seeds that the wanted difference needs."""
    noise, whats = forecast.noise, ["a difference from the baseline of "]
    each = [
        _finds(p, whats.pop() if whats and p.seeds >= LEAST else "") for p in forecast.prospects
    ]
    told = [
        f"Noise of a run in {forecast.metric}: {number(noise.deviation)} "
        f"(95 %: {number(noise.low)} to {number(noise.high)}, {noise.freedom} "
        f"degree{'s' * (noise.freedom > 1)} of freedom), from {noise.source}.",
        f"With a chance of 80 %, {'; '.join(each)}.",
    ]
    for factor in forecast.prospects[-1].factors:
        known = [p for p in forecast.prospects if p.seeds >= LEAST]
        each = [f"{p.seeds} find {number(p.factors[factor])}" for p in known]
        told.append(f"For {factor}, over all levels of the other factors: {'; '.join(each)}.")
    return [*told, _needs(forecast)]


def dry(forecast: Forecast | None) -> list[str]:
    """A forecast before anything has run, or the reason why there is none."""
    return lines(forecast) if forecast is not None else [UNKNOWN]


def _finds(prospect: Prospect, what: str) -> str:
    """`3 seeds detect 0.0300 (in 41 min)`."""
    if prospect.seeds < LEAST:
        return f"{prospect.seeds} seed detects no difference"
    seeds = " seeds" if what else ""
    time = f" ({span(prospect.seconds)})" if math.isfinite(prospect.seconds) else ""
    return f"{prospect.seeds}{seeds} detect {what}{number(prospect.finds)}{time}"


def _needs(forecast: Forecast) -> str:
    """The number of seeds that the wanted difference needs."""
    what = "which would matter, " if forecast.matters else ""
    text = f"To detect a difference of {number(forecast.wanted)}, {what}takes "
    if forecast.needed is None:
        return f"{text}more than {MOST:,} seeds."
    seconds = forecast.needed_seconds
    time = "" if seconds is None or not math.isfinite(seconds) else f" ({span(seconds)})"
    over = forecast.most is not None and forecast.needed > forecast.most
    about = "about " if forecast.needed > DRAWN else ""
    beyond = f"; max_seeds is {forecast.most}" if over else ""
    return f"{text}{about}{forecast.needed} seeds{time}{beyond}."
