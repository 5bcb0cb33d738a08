"""The pictures of the page, as Vega-Lite specifications: https://vega.github.io/vega-lite/docs.

The page refers to each by its key. A specification that shows single cells has a parameter `off`:
the cells that a reader switched off.
"""

from __future__ import annotations

import colorsys
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from strawberry.ablate.factors import Grid
from strawberry.ablate.record import Record
from strawberry.ablate.report.levels import alone, names, pairs, table_grid, together
from strawberry.ablate.report.series import kinds, series
from strawberry.ablate.report.table import CellRow, ResultTable

Spec: TypeAlias = dict[str, Any]

TABLEAU = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b79a20", "#b279a2", "#ff9da6",
    "#9d755d", "#8a8f98",
)  # fmt: skip
"""Colours that are distinguishable on white and on black."""
VERDICTS = {
    "better": "#2f9e4f",
    "worse": "#d0453a",
    "equivalent": "#3f82d0",
    "no evidence": "#8a8f98",
    "under-powered": "#b79a20",
}
LABEL = 26
"""Characters in a line of a cell's name on an axis."""
AXES = {
    "steps": "datum.step",
    "tokens": "datum.step * datum.tokens",
    "FLOPs": "datum.step * datum.flops",
    "seconds": "datum.seconds",
}
"""The x axes of curves, and how to compute them from a point."""
COSTS: dict[str, Callable[[CellRow], float | None]] = {
    "training FLOPs": lambda r: float(r.cell["budget"]["flops"]),
    "parameters": lambda r: float(r.cell["budget"]["parameters"]),
    "seconds of a million tokens": lambda r: (
        1e6 / r.tokens_per_second if r.tokens_per_second else None
    ),
    "cache bytes": lambda r: float(r.cell["budget"]["cache_bytes"]),
}
"""The costs against which the metric is drawn."""
START = 0.25
"""Fraction of the steps that curves leave out at first, where all of them fall alike."""
OFF: Spec = {"name": "off", "value": []}
SHOWN = "indexof(off, datum.cell) < 0"


def colours(*tables: ResultTable) -> dict[str, str]:
    """A colour for each cell, the same in all pictures."""
    return palette(sorted({row.name for table in tables for row in table.rows}))


def palette(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, all different."""
    if len(names) <= len(TABLEAU):
        return dict(zip(names, TABLEAU, strict=False))
    parts = [
        colorsys.hls_to_rgb(i / len(names), 0.48 + 0.12 * (i % 2), 0.6) for i in range(len(names))
    ]
    return {
        name: "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
        for name, rgb in zip(names, parts, strict=True)
    }


def charts(record: Record, table: ResultTable) -> dict[str, Spec]:
    """All pictures for which there is data."""
    colour = colour_of(table)
    specs: dict[str, Spec] = {}
    if any(row.comparison and math.isfinite(row.comparison.difference) for row in table.rows):
        specs["differences"] = differences(table)
    curves = series(record, table)
    if curves:
        specs["curves"] = curves_chart(curves, colour)
    if any(row.values for row in table.rows):
        for number, cost in enumerate(COSTS):
            specs[f"cost{number}"] = cost_chart(table, cost, colour)
    grid = table_grid(record, table)
    if grid is not None:
        specs |= factor_charts(grid, table.metric)
    return specs


def framed(height: Any, **parts: Any) -> Spec:
    """A picture as wide as its container."""
    return {"width": "container", "height": height, "autosize": {"type": "fit-x",
            "contains": "padding"}, **parts}  # fmt: skip


def colour_of(*tables: ResultTable) -> Spec:
    """The channel that gives each cell its colour."""
    chosen = colours(*tables)
    scale = {"domain": list(chosen), "range": list(chosen.values())}
    return {"field": "cell", "type": "nominal", "scale": scale, "legend": None}


def quantity(field: str, title: str | None, **parts: Any) -> Spec:
    """A quantitative channel, whose axis need not begin at 0."""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False},
            **parts}  # fmt: skip


def tip(*fields: str) -> list[Spec]:
    """The tooltip; numbers in five digits."""
    words = ("cell", "seed", "verdict", "level", "other")
    return [
        {"field": name, "type": "nominal"}
        if name in words
        else {"field": name, "type": "quantitative", "format": ".5~g"}
        for name in fields
    ]


def curves_chart(curves: Sequence[Mapping[str, Any]], colour: Spec) -> Spec:
    """A thin line for each seed, a thick one for their mean."""
    known = [name for name in AXES if name != "seconds" or all("seconds" in c for c in curves)]
    lists = ["step", "value", *(["seconds"] if "seconds" in known else [])]
    x = " : ".join(f"axis == '{name}' ? {AXES[name]}" for name in known) + " : datum.step"
    y = quantity("value", None)
    across = quantity("x", None, axis={"format": "~s", "tickCount": 6, "labelOverlap": True})
    mean = [{"aggregate": [{"op": "mean", "field": f, "as": f} for f in ("x", "value")],
             "groupby": ["cell", "step"]}]  # fmt: skip
    return framed(
        360,
        data={"values": list(curves)},
        params=[OFF, {"name": "axis", "value": known[0]}, {"name": "start", "value": START},
                {"name": "what", "value": kinds(curves)[0]}],
        transform=[
            {"filter": f"datum.what == what && {SHOWN}"},
            {"calculate": "length(datum.step) < 2", "as": "alone"},  # no line, so a point
            {"flatten": lists},
            {"filter": "datum.step >= start * datum.last"},
            {"calculate": x, "as": "x"},
        ],
        encoding={"x": across, "y": y, "color": colour},
        layer=[
            {"mark": {"type": "line", "strokeWidth": 1, "opacity": 0.35},
             "encoding": {"detail": {"field": "seed", "type": "nominal"}}},
            {"mark": {"type": "line", "strokeWidth": 2.5}, "transform": mean},
            {"mark": {"type": "point", "filled": True, "size": 90},
             "encoding": {"opacity": {"condition": {"test": "datum.alone", "value": 0.7},
                                      "value": 0},
                          "tooltip": tip("cell", "seed", "step", *lists[2:], "value")}},
        ],
        usermeta={"axes": known, "kinds": kinds(curves)},
    )  # fmt: skip


def differences(table: ResultTable) -> Spec:
    """Each cell's difference from the baseline, its interval, and the pairs of seeds."""
    base = next(row.values for row in table.rows if row.name == table.baseline)
    rows = [row for row in table.rows if row.comparison and row.values]
    means, pairs = [], []
    for row in rows:
        c = row.comparison
        assert c is not None
        known = {"cell": row.name, "verdict": row.verdict, "difference": c.difference}
        means.append(known | ({"low": c.low, "high": c.high} if math.isfinite(c.low) else {}))
        pairs += [
            {"cell": row.name, "verdict": row.verdict, "seed": seed, "value": value,
             "difference": value - base[seed]}
            for seed, value in row.values.items() if seed in base
        ]  # fmt: skip
    scale = {"domain": list(VERDICTS), "range": list(VERDICTS.values())}
    used = [verdict for verdict in VERDICTS if any(row.verdict == verdict for row in rows)]
    x = quantity("difference", f"difference in {table.metric}")
    layers: list[Spec] = [
        {"mark": {"type": "rule"}, "data": {"values": [{}]}, "encoding": {"x": {"datum": 0}}},
        {"mark": {"type": "rule", "strokeWidth": 3},
         "transform": [{"filter": "isValid(datum.low)"}],
         "encoding": {"x": quantity("low", x["title"]), "x2": {"field": "high"},
                      "tooltip": tip("cell", "verdict", "difference", "low", "high")}},
        {"mark": {"type": "tick", "thickness": 1.5, "size": 14}, "data": {"values": pairs},
         "encoding": {"x": x, "tooltip": tip("cell", "seed", "value", "difference")}},
        {"mark": {"type": "point", "filled": True, "size": 90}, "encoding": {"x": x,
         "tooltip": tip("cell", "verdict", "difference", "low", "high")}},
    ]  # fmt: skip
    for layer in layers[1:]:
        layer["encoding"] |= {
            "y": {"field": "cell", "type": "nominal", "sort": [row.name for row in rows],
                  "title": None, "axis": cell_axis(row.name for row in rows)},
            "color": {"field": "verdict", "type": "nominal", "scale": scale, "title": None,
                      "legend": {"orient": "top", "values": used, "columns": 3}},
        }  # fmt: skip
    if math.isfinite(table.effect):
        ends = {"x": {"datum": -table.effect}, "x2": {"datum": table.effect}}
        band = {"mark": {"type": "rect", "opacity": 0.12}, "data": {"values": [{}]},
                "encoding": ends}  # fmt: skip
        layers.insert(0, band)
    return framed(40 + 38 * len(rows), data={"values": means}, layer=layers)


def cell_axis(cells: Iterable[str]) -> Spec:
    """The axis of cells: a long name is at most three lines, which the height of its row holds."""
    how: dict[str, Any] = {"max_lines": 3, "placeholder": " …", "break_on_hyphens": False}
    lines = {name: textwrap.wrap(name, LABEL, **how) for name in cells}
    return {"labelExpr": f"({json.dumps(lines)})[datum.label]"}


def cost_chart(table: ResultTable, cost: str, colour: Spec) -> Spec:
    """The metric against a cost, and the Pareto front."""
    points: list[Spec] = []
    seeds: list[Spec] = []
    for row in table.rows:
        x = COSTS[cost](row) if row.values else None
        if x is not None:
            points.append({"cell": row.name, "cost": x, "value": row.summary.mean})
            seeds += [{"cell": row.name, "cost": x, "seed": seed, "value": value}
                      for seed, value in row.values.items()]  # fmt: skip
    front = pareto([(p["cost"], p["value"]) for p in points], higher=table.higher_is_better)
    line = [{"cost": x, "value": y} for x, y in front]
    shown = [{"filter": SHOWN}]
    x_axis = quantity("cost", cost, axis={"format": "~s", "tickCount": 5, "labelOverlap": True})
    axes = {"x": x_axis, "y": quantity("value", table.metric, axis={"tickCount": 5})}
    return framed(
        220,
        params=[OFF],
        layer=[
            {"mark": {"type": "line", "strokeDash": [4, 3], "strokeWidth": 1, "color": "#8a8f98"},
             "data": {"values": line}, "encoding": axes},
            {"mark": {"type": "point", "filled": True, "size": 18, "opacity": 0.45},
             "data": {"values": seeds}, "transform": shown,
             "encoding": {**axes, "color": colour,
                          "tooltip": tip("cell", "seed", "value", "cost")}},
            {"mark": {"type": "point", "filled": True, "size": 110},
             "data": {"values": points}, "transform": shown,
             "encoding": {**axes, "color": colour, "tooltip": tip("cell", "value", "cost")}},
        ],
    )  # fmt: skip


def factor_charts(grid: Grid, metric: str) -> dict[str, Spec]:
    """Each factor by itself, and each pair of factors."""
    factors = list(zip(names(grid), grid.levels.values(), strict=True))
    specs = {
        f"factor{index}": _levels(alone(grid, index), name, levels, metric)
        for index, (name, levels) in enumerate(factors)
    }
    for one, other in pairs(grid):
        title, levels = factors[other]
        spec = _levels(together(grid, one, other), *factors[one], metric)
        colour = {"field": "other", "type": "nominal", "title": title, "sort": list(levels),
                  "legend": {"orient": "top", "columns": 2}}  # fmt: skip
        spec["encoding"]["color"] = colour
        spec["layer"][1]["encoding"]["tooltip"] = tip("level", "other", "seed", "value")
        specs[f"pair{one}-{other}"] = spec
    return specs


def _levels(rows: Sequence[Spec], name: str, levels: Sequence[str], metric: str) -> Spec:
    """The mean of each level as a line, each seed as a point."""
    axis = {"labelAngle": -25 if sum(map(len, levels)) > 24 else 0, "labelLimit": 130}
    x = {"field": "level", "type": "nominal", "title": name, "sort": list(levels), "axis": axis}
    y = quantity("value", metric, axis={"tickCount": 5})
    return framed(
        220,
        data={"values": list(rows)},
        encoding={"x": x},
        layer=[
            {"mark": {"type": "line", "point": {"size": 90, "filled": True}},
             "encoding": {"y": {**y, "aggregate": "mean"}}},
            {"mark": {"type": "point", "filled": True, "size": 30, "opacity": 0.6},
             "encoding": {"y": y,
                          "tooltip": tip("level", "seed", "value")}},
        ],
    )  # fmt: skip


def pareto(points: list[tuple[float, float]], *, higher: bool = False) -> list[tuple[float, float]]:
    """The Pareto front, sorted by cost."""
    sign = -1 if higher else 1
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], sign * p[1])):
        if not front or sign * y < sign * front[-1][1]:
            front.append((x, y))
    return front


def swatches(*tables: ResultTable) -> list[tuple[str, str]]:
    """Cells and their colours, in the order of the tables."""
    chosen = colours(*tables)
    drawn = dict.fromkeys(row.name for table in tables for row in table.rows if _drawn(row))
    return [(name, chosen[name]) for name in drawn]


def _drawn(row: CellRow) -> bool:
    return bool(row.values or row.planned)
