"""The pictures of a ladder's page, as Vega-Lite specifications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from strawberry.ablate.report.charts import OFF, SHOWN, Spec, framed, palette, tip
from strawberry.ladder.draws import interval
from strawberry.ladder.results import Results

POINTS: Final = 60
"""Points of a curve."""
BEYOND: Final = 100.0
"""How much more compute than the largest rung's is drawn."""
FLOPS_TITLE: Final = "training FLOPs"


def colours(names: Sequence[str]) -> list[tuple[str, str]]:
    """Architectures and their colours."""
    return list(palette(names).items())


def ladder_charts(results: Results) -> dict[str, Spec]:
    """All pictures that there is something for."""
    specs: dict[str, Spec] = {"losses": losses(results)}
    if results.analysis.gaps:
        specs["gains"] = gains(results)
    return specs


def _colour(names: Sequence[str]) -> Spec:
    chosen = dict(colours(names))
    scale = {"domain": list(chosen), "range": list(chosen.values())}
    return {"field": "cell", "type": "nominal", "scale": scale, "legend": None}


def _log(field: str, title: str | None, form: str = "~e") -> Spec:
    """A channel on a logarithmic scale."""
    return {"field": field, "type": "quantitative", "title": title,
            "scale": {"type": "log", "nice": False},
            "axis": {"format": form, "tickCount": 6, "labelOverlap": True}}  # fmt: skip


def _factors(results: Results) -> tuple[np.ndarray[Any, Any], float]:
    """Compute over the largest rung's, from the smallest rung to far beyond; and that rung's."""
    flops = results.analysis.runs.flops
    top = float(flops.max())
    return np.geomspace(float(flops.min()) / top, BEYOND, POINTS), top


def _beyond(top: float, last: float) -> Spec:
    """What lies beyond the largest rung, shaded."""
    return {
        "data": {"values": [{"from": top, "to": last}]},
        "mark": {"type": "rect", "opacity": 0.08},
        "encoding": {
            "x": _log("from", FLOPS_TITLE),
            "x2": {"field": "to"},
            "color": {"value": "#8a8f98"},
        },
    }


def losses(results: Results) -> Spec:
    """The curve of each architecture with its band, runs as points, and what was held out."""
    analysis = results.analysis
    names = analysis.runs.names
    factors, top = _factors(results)
    curve: list[Spec] = []
    for place, name in enumerate(names):
        sizes = analysis.ahead(place, list(factors))
        predicted = analysis.predict(sizes)
        curve += [
            {"cell": name, "flops": float(sizes.flops[i]), "loss": float(predicted.loss[i]),
             "low": float(predicted.curve_low[i]), "high": float(predicted.curve_high[i]),
             "extrapolated": bool(sizes.flops[i] > top)}
            for i in range(len(factors))
        ]  # fmt: skip
    points = [
        {"cell": row["architecture"], "seed": row["seed"], "rung": row["rung"] + 1,
         "flops": row["training_flops"], "loss": row["loss"]}
        for row in results.record.rows()
    ]  # fmt: skip
    held = [
        {"cell": row["architecture"], "flops": row["training_flops"], "loss": row["loss"],
         "low": row["low"], "high": row["high"]}
        for row in results.held_out
    ]  # fmt: skip
    x, y = _log("flops", FLOPS_TITLE), _log("loss", "loss, nats a token", "~r")
    shown, colour = [{"filter": SHOWN}], _colour(names)
    bars: list[Spec] = [
        {
            "data": {"values": held},
            "transform": shown,
            "mark": {"type": "rule", "strokeWidth": 4, "opacity": 0.5},
            "encoding": {
                "y": {**y, "field": "low"},
                "y2": {"field": "high"},
                "tooltip": tip("cell", "loss", "low", "high"),
            },
        }
    ]
    line = {"type": "line", "strokeWidth": 2}
    return framed(
        420,
        params=[OFF],
        encoding={"x": x, "color": colour},
        layer=[
            _beyond(top, float(BEYOND * top)),
            {"data": {"values": curve}, "transform": shown,
             "mark": {"type": "area", "opacity": 0.16},
             "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"data": {"values": curve}, "mark": line,
             "transform": [*shown, {"filter": "!datum.extrapolated"}], "encoding": {"y": y}},
            {"data": {"values": curve}, "mark": {**line, "strokeDash": [5, 4]},
             "transform": [*shown, {"filter": "datum.extrapolated"}], "encoding": {"y": y}},
            *(bars if held else ()),
            {"data": {"values": points}, "transform": shown,
             "mark": {"type": "point", "filled": True, "size": 34, "opacity": 0.8},
             "encoding": {"y": y, "tooltip": tip("cell", "seed", "rung", "flops", "loss")}},
            {"data": {"values": curve}, "transform": shown,
             "mark": {"type": "point", "filled": True, "size": 80, "opacity": 0},
             "encoding": {"y": y, "tooltip": tip("cell", "flops", "loss", "low", "high")}},
        ],
    )  # fmt: skip


def gains(results: Results) -> Spec:
    """How much of each architecture's compute the first one needs for the same loss."""
    factors, top = _factors(results)
    rows: list[Spec] = []
    for gap in results.analysis.gaps:
        flops = factors * top
        drawn = gap.gain(np.log(flops))
        low, high = interval(drawn)
        for i, middle in enumerate(np.median(drawn, axis=0)):
            rows.append({"cell": gap.names[1], "flops": float(flops[i]), "gain": float(middle),
                         "low": float(max(low[i], 1e-3)), "high": float(min(high[i], 1e3)),
                         "extrapolated": bool(flops[i] > top),
                         "chance": float(gap.chance(np.log(flops[i]))[0])})  # fmt: skip
    names = results.analysis.runs.names
    y = _log("gain", f"compute that {names[0]} needs", "~r")
    shown = [{"filter": SHOWN}]
    line = {"type": "line", "strokeWidth": 2}
    return framed(
        260,
        params=[OFF],
        data={"values": rows},
        encoding={"x": _log("flops", FLOPS_TITLE), "color": _colour(names)},
        layer=[
            _beyond(top, float(BEYOND * top)),
            {"data": {"values": [{}]}, "mark": {"type": "rule"},
             "encoding": {"x": None, "color": None, "y": {"datum": 1}}},
            {"transform": shown, "mark": {"type": "area", "opacity": 0.16},
             "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"transform": [*shown, {"filter": "!datum.extrapolated"}], "mark": line,
             "encoding": {"y": y}},
            {"transform": [*shown, {"filter": "datum.extrapolated"}],
             "mark": {**line, "strokeDash": [5, 4]}, "encoding": {"y": y}},
            {"transform": shown, "mark": {"type": "point", "size": 80, "opacity": 0},
             "encoding": {"y": y, "tooltip": tip("cell", "flops", "gain", "low", "high",
                                                 "chance")}},
        ],
    )  # fmt: skip
