"""The report as one HTML page with its styles, data and drawing library."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

import strawberry
from strawberry.ablate.extra import needs
from strawberry.ablate.record import Record
from strawberry.ablate.report import outlook
from strawberry.ablate.report.charts import charts, swatches
from strawberry.ablate.report.recipes import details
from strawberry.ablate.report.table import ResultTable
from strawberry.ablate.report.text import (
    COLUMNS,
    EFFECTS,
    FACTORS,
    gone,
    intervals_of,
    noise,
    notes,
    patches,
    shown,
)

EXPENSE = ("params", "active", "FLOP/token", "cache", "tokens", "tuning", "tokens/s")
"""Columns for the costs of a cell, which the page shows in a separate table."""
FIRST = ("cell", "verdict")


def template(name: str, package: str = "strawberry.ablate.report") -> jinja2.Template:
    """A template of a package, which escapes its values; its parts may be this package's."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(each, ".") for each in (package, "strawberry.ablate.report")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _code
    environment.filters["json"] = _json
    return environment.get_template(name)


def _code(text: str) -> Markup:
    """Escape text; text between backticks becomes code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts)
    )


def _json(value: Any) -> Markup:
    """JSON for a script element, escaped so that nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 (no `<` is left)


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one self-contained script.

    Raises StrawberryError if their package is not installed.
    """
    script: str = needs("vl_convert").javascript_bundle()
    return script.replace("</script", "<\\/script")


def behaviour() -> str:
    """The page's own script."""
    return resources.files("strawberry.ablate.report").joinpath("page.js").read_text()


def _part(table: ResultTable, names: Sequence[str]) -> dict[str, Any]:
    """Some columns of the table, with the verdict after the name."""
    part = shown(table)
    columns = [name for name in names if name in part]
    columns.sort(key=lambda name: name not in FIRST)
    rows = [
        {
            "verdict": row.verdict,
            "place": place,
            "cells": [part[name](row) for name in columns],
        }
        for place, row in enumerate(table.rows, 1)
    ]
    return {"columns": columns, "rows": rows}


def _effects(table: ResultTable) -> dict[str, Any]:
    """The table of a grid's factors; its rows have no links."""
    rows = [
        {
            "verdict": effect.comparison.verdict,
            "place": None,
            "cells": [make(effect) for make in EFFECTS.values()],
        }
        for effect in table.effects
    ]
    return {"columns": list(EFFECTS), "rows": rows}


def page(record: Record, table: ResultTable) -> str:
    """The whole page, for a finished or unfinished ablation."""
    drawn = charts(record, table)
    changes = dict(patches(record))
    inside = {row.name for row in table.rows}
    return template("page.html.j2").render(
        title=f"Ablation of {record.content['name']}",
        written=record.content["written"],
        ranking=_part(table, [name for name in COLUMNS if name not in EXPENSE]),
        expense=_part(table, ["cell", *EXPENSE]),
        notes=notes(record, table),
        intervals_of=intervals_of(table),
        noise=noise(table),
        outlook=outlook.lines(table.forecast) if table.forecast else [],
        gone=gone(table),
        details=details(record, table, changes),
        others=[(name, change) for name, change in changes.items() if name not in inside],
        charts=drawn,
        factors=[name for name in drawn if name.startswith(("factor", "pair"))],
        effects=_effects(table),
        about_effects=FACTORS,
        costs=[name for name in drawn if name.startswith("cost")],
        swatches=swatches(table),
        environment={**record.content["environment"], "report": strawberry.__version__},
        command=record.command,
        seconds=table.seconds,
        library=library() if drawn else "",
        behaviour=behaviour(),
    )  # fmt: skip
