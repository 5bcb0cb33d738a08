"""The pictures of a suite's page: all tables in one, then each table by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from strawberry.ablate.record import Record
from strawberry.ablate.report.charts import (
    TABLEAU,
    Spec,
    cell_axis,
    colour_of,
    curves_chart,
    differences,
    framed,
    quantity,
    tip,
)
from strawberry.ablate.report.series import POINTS, series
from strawberry.ablate.report.table import ResultTable


def suite_charts(
    tables: Mapping[str, ResultTable], records: Mapping[str, Record | None]
) -> dict[str, Spec]:
    """All pictures for which there is data; a table's keys end in its number, from 0."""
    charts: dict[str, Spec] = {}
    if any(_shares(table) for table in tables.values()):
        charts["overview"] = overview(tables)
    colour = colour_of(*tables.values())
    for number, (name, table) in enumerate(tables.items()):
        record = records[name]
        assert record is not None
        if _shares(table):
            charts[f"differences{number}"] = differences(table)
        curves = series(record, table, POINTS // len(tables))
        if curves:
            charts[f"curves{number}"] = curves_chart(curves, colour)
    return charts


def overview(tables: Mapping[str, ResultTable]) -> Spec:
    """Each cell's difference from the baseline in every table, in per cent of the baseline."""
    points = [
        {**point, "table": name} for name, table in tables.items() for point in _shares(table)
    ]
    cells = list(dict.fromkeys(point["cell"] for point in points))
    colours = [TABLEAU[number % len(TABLEAU)] for number in range(len(tables))]
    title = "difference from the baseline, %"
    rows = {
        "y": {"field": "cell", "type": "nominal", "sort": cells, "title": None,
              "axis": cell_axis(cells)},
        "yOffset": {"field": "table", "type": "nominal", "sort": list(tables)},
        "color": {"field": "table", "type": "nominal", "title": None,
                  "scale": {"domain": list(tables), "range": colours},
                  "legend": {"orient": "top", "columns": 3, "symbolType": "circle"}},
        "tooltip": [{"field": "table", "type": "nominal"},
                    *tip("cell", "verdict", "difference", "low", "high")],
    }  # fmt: skip
    return framed(
        60 + len(cells) * max(34, 13 * len(tables)),
        data={"values": points},
        layer=[
            {"mark": {"type": "rule"}, "data": {"values": [{}]}, "encoding": {"x": {"datum": 0}}},
            {"mark": {"type": "rule", "strokeWidth": 2},
             "transform": [{"filter": "isValid(datum.low)"}],
             "encoding": {**rows, "x": quantity("low", title), "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 70},
             "encoding": {**rows, "x": quantity("difference", title)}},
        ],
    )  # fmt: skip


def _shares(table: ResultTable) -> list[dict[str, Any]]:
    """A table's differences and intervals, relative to the baseline's mean."""
    means = [row.summary.mean for row in table.rows if row.name == table.baseline and row.values]
    if not means or not means[0]:
        return []
    scale, points = 100 / abs(means[0]), list[dict[str, Any]]()
    for row in table.rows:
        c = row.comparison
        if c is not None and math.isfinite(c.difference):
            ends = {"low": scale * c.low, "high": scale * c.high} if math.isfinite(c.low) else {}
            points.append({"cell": row.name, "verdict": str(row.verdict),
                           "difference": scale * c.difference, **ends})  # fmt: skip
    return points
