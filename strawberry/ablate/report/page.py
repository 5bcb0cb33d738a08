"""The report as one HTML page: styles and pictures are in it."""

from __future__ import annotations

import shlex

import jinja2
from markupsafe import Markup, escape

import strawberry
from strawberry.ablate.record import Record
from strawberry.ablate.report import plots
from strawberry.ablate.report.files import gone, notes, patches, shown
from strawberry.ablate.report.table import Table


def template(name: str) -> jinja2.Template:
    """A page of this folder, which escapes what it is given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("strawberry.ablate.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _code
    return environment.get_template(name)


def _code(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts)
    )


def page(record: Record, table: Table) -> str:
    """The whole page; what is drawn has at least one finished trial."""
    drawn = any(row.values for row in table.rows)
    compared = any(row.comparison for row in table.rows)
    return template("page.html.j2").render(
        title=f"Ablation of {record.content['name']}",
        written=record.content["written"],
        columns=list(shown(table)),
        rows=[
            {"verdict": row.verdict, "cells": [make(row) for make in shown(table).values()]}
            for row in table.rows
        ],
        notes=notes(record, table),
        gone=gone(table),
        patches=patches(record),
        curves=plots.loss_curves(record, table) if drawn else "",
        forest=plots.forest(table) if drawn and compared else "",
        costs=[plots.against(table, cost) for cost in plots.COSTS] if drawn else [],
        environment={**record.content["environment"], "report": strawberry.__version__},
        command=shlex.join(record.content["command"]),
        seconds=table.seconds,
    )
