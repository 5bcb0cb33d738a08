"""The pictures of the Markdown report as SVG: those of the page, without a browser."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from strawberry.ablate.extra import needs
from strawberry.ablate.record import Record
from strawberry.ablate.report.charts import COSTS, START, VERDICTS, colours, pareto
from strawberry.ablate.report.table import ResultTable, curves


def pictures(record: Record, table: ResultTable) -> dict[str, tuple[str, str]]:
    """The title and SVG of each picture for which there is data, by name."""
    by_name = {}
    if any(row.comparison and math.isfinite(row.comparison.difference) for row in table.rows):
        by_name["differences"] = f"Differences from {table.baseline}", forest(table)
    if any(any(curves(record, row.name, table.metric).values()) for row in table.rows):
        by_name["curves"] = f"`{table.metric}` over steps", loss_curves(record, table)
    if any(row.values for row in table.rows):
        for cost in COSTS:
            title = f"`{table.metric}` against {cost}"
            by_name[cost.replace(" ", "-")] = title, against(table, cost)
    return by_name


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = needs("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Any) -> str:
    """The figure without an XML header, with text as text, and reproducible bytes."""
    out = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "strawberry"}
    with needs("matplotlib").rc_context(settings):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def loss_curves(record: Record, table: ResultTable) -> str:
    """The metric over steps: the mean of the seeds, in a band from the minimum to the maximum."""
    figure, axes = _figure(9, 5)
    colour = colours(table)
    for row in table.rows:
        points: dict[float, list[float]] = {}
        for curve in curves(record, row.name, table.metric).values():
            for step, value in curve:
                if step >= START * curve[-1][0]:  # before, all of them fall alike
                    points.setdefault(step, []).append(value)
        if not points:
            continue
        steps = sorted(points)
        means = [float(np.mean(points[s])) for s in steps]
        axes.plot(steps, means, marker=".", label=row.name, color=colour[row.name])
        low, high = ([pick(points[s]) for s in steps] for pick in (min, max))
        axes.fill_between(steps, low, high, color=colour[row.name], alpha=0.15, linewidth=0)
    axes.set_xlabel("step")
    axes.set_ylabel(table.metric)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _svg(figure)


def forest(table: ResultTable) -> str:
    """Paired differences against the baseline, with their intervals."""
    rows = [row for row in table.rows if row.comparison is not None][::-1]
    figure, axes = _figure(9, 1.2 + 0.35 * len(rows))
    axes.axvline(0, color="black", linewidth=1)
    if math.isfinite(table.effect):
        axes.axvspan(-table.effect, table.effect, color="#000", alpha=0.06, linewidth=0)
    spans = []
    for place, row in enumerate(rows):
        c = row.comparison
        assert c is not None
        if not math.isfinite(c.difference):
            continue
        colour = VERDICTS[c.verdict]
        axes.plot(c.difference, place, "o", color=colour)
        if math.isfinite(c.low):
            axes.plot([c.low, c.high], [place, place], color=colour, linewidth=2)
            spans += [c.low, c.high]
        for seed, value in row.values.items():
            base = next((r.values.get(seed) for r in table.rows if r.name == table.baseline), None)
            if base is not None:
                axes.plot(value - base, place, "|", color=colour, alpha=0.6, markersize=9)
                spans.append(value - base)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{table.metric} - that of {table.baseline}")
    return _svg(figure)


def against(table: ResultTable, cost: str) -> str:
    """The metric against a cost; only points of the Pareto front have labels."""
    figure, axes = _figure(4.6, 3.6)
    colour = colours(table)
    points = [
        (value, row.summary.mean, row.name)
        for row in table.rows
        if row.values and (value := COSTS[cost](row)) is not None
    ]
    front = pareto([(x, y) for x, y, _ in points], higher=table.higher_is_better)
    middle = (min(points)[0] + max(points)[0]) / 2 if points else 0.0
    for x, y, name in points:
        axes.plot(x, y, "o", color=colour[name])
        if (x, y) in front:
            left = x > middle  # names grow towards the middle, not out of the picture
            axes.annotate(name, (x, y), fontsize=7, xytext=(-4 if left else 4, 4),
                          textcoords="offset points", ha="right" if left else "left")  # fmt: skip
    axes.plot([x for x, _ in front], [y for _, y in front], color="#888", linewidth=1, zorder=0)
    axes.margins(x=0.25, y=0.15)
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(needs("matplotlib.ticker").EngFormatter(sep=""))
    axes.set_xlabel(cost)
    axes.set_ylabel(table.metric)
    return _svg(figure)
