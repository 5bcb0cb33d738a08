"""The report of a suite: a row for each cell, a column for each table."""

from __future__ import annotations

import csv
import io
import statistics as plain
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from strawberry.ablate.record import Record
from strawberry.ablate.report.charts import swatches
from strawberry.ablate.report.files import write_report
from strawberry.ablate.report.page import behaviour, library, template
from strawberry.ablate.report.suite_charts import suite_charts
from strawberry.ablate.report.table import CellRow, ResultTable, tabulate
from strawberry.figures import number
from strawberry.files.atomic import write_atomic

MARKS = {
    "better": "+", "worse": "-", "baseline": "", "equivalent": "=", "no evidence": "~",
    "under-powered": "?",
}  # fmt: skip
"""The symbol after a mean: its comparison with the baseline's."""


@dataclass(frozen=True, slots=True)
class SuiteSummary:
    """All tables of a suite, side by side.

    Attributes:
        metric: the compared metric.
        tables: the started tables by name, in the suite's order.
        planned: number of tables of the suite.
        rows: a cell's row in each table, by cell; the best mean over all tables first.
    """

    metric: str
    tables: Mapping[str, ResultTable]
    planned: int
    rows: Mapping[str, Mapping[str, CellRow]]

    def mean(self, cell: str) -> float | None:
        """The mean over the tables; None if a cell has no value in one."""
        values = [row.summary.mean for row in self.rows[cell].values() if row.values]
        return plain.fmean(values) if len(values) == self.planned else None


def summarise(records: Mapping[str, Record | None]) -> SuiteSummary:
    """The tables of a suite, finished or not; None for those that have not started."""
    tables = {name: tabulate(record) for name, record in records.items() if record is not None}
    cells = dict.fromkeys(row.name for table in tables.values() for row in table.rows)
    rows = {
        cell: {
            name: row for name, table in tables.items() for row in table.rows if row.name == cell
        }
        for cell in cells
    }
    first = next(iter(tables.values()))
    sign = -1 if first.higher_is_better else 1
    summary = SuiteSummary(first.metric, tables, len(records), rows)
    means = {cell: summary.mean(cell) for cell in rows}
    ranked = sorted(rows, key=lambda cell: (means[cell] is None, sign * (means[cell] or 0.0)))
    return replace(summary, rows={cell: rows[cell] for cell in ranked})


def write_summary(
    folder: Path, records: Mapping[str, Record | None], summary: SuiteSummary | None = None
) -> list[Path]:
    """Write each table's report, and `suite.md`, `suite.csv` and `suite.html`.

    `summary` is that of the records, if already computed.
    """
    summary = summary or summarise(records)
    for name, record in records.items():
        if record is not None:
            write_report(record, summary.tables[name])
    files = {
        "suite.md": _markdown(summary),
        "suite.csv": _csv(summary),
        "suite.html": _page(summary, records),
    }
    for name, text in files.items():
        write_atomic(folder / name, text)
    return [folder / name for name in files]


def columns(summary: SuiteSummary) -> list[str]:
    """The column headings."""
    return ["cell", *summary.tables, "mean"]


def entry(row: CellRow | None) -> str:
    """A cell's mean in a table, with its symbol."""
    if row is None:
        return "skipped"
    if not row.values:
        return row.verdict
    return f"{number(row.summary.mean, 3)} {MARKS.get(row.verdict, '')}".rstrip()


def entries(summary: SuiteSummary) -> list[list[str]]:
    """The rows of the table, as text."""
    return [
        [
            cell,
            *(entry(in_table.get(name)) for name in summary.tables),
            number(summary.mean(cell), 3),
        ]
        for cell, in_table in summary.rows.items()
    ]


def notes(summary: SuiteSummary) -> list[str]:
    """The meaning of the table."""
    first = next(iter(summary.tables.values()))
    better = "higher" if first.higher_is_better else "lower"
    seeds = sorted({len(row.values) for rows in summary.rows.values() for row in rows.values()})
    number_of = "/".join(map(str, seeds))
    return [
        f"Means of `{summary.metric}` over {number_of} seeds; {better} is better. "
        f"Symbols against {first.baseline}: + better, - worse, = equivalent, ~ no "
        "evidence of a difference that matters, ? too few seeds to tell.",
        *_alphas(summary),
    ]


def _alphas(summary: SuiteSummary) -> list[str]:
    """The alpha of the tables: each, together, and in their campaigns."""
    alphas = [table.alpha for table in summary.tables.values()]
    least, most = f"{min(alphas):.2g}", f"{max(alphas):.2g}"
    each = most if least == most else f"{least} to {most}"
    share = summary.planned / len(alphas)
    text = (f"The chance of any false finding is at most {each} in each table, and "
            f"{sum(alphas) * share:.2g} in the whole suite of {summary.planned}.")  # fmt: skip
    numbers = {name: t.campaign.get("number") for name, t in summary.tables.items() if t.campaign}
    asked = ", ".join(f"{name} {number}" for name, number in numbers.items())
    return [text, *([f"Question numbers in their campaigns: {asked}."] if asked else [])]


def _markdown(summary: SuiteSummary) -> str:
    heads = columns(summary)
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(row)} |" for row in entries(summary)]
    links = [f"- [{name}]({name}/report.md)" for name in summary.tables]
    return "\n".join(
        ["# Suite", "", *lines, "", *(f"- {note}" for note in notes(summary)), "", *links, ""]
    )


def _csv(summary: SuiteSummary) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell", "table", "verdict", "seeds", "mean", "sd", "p_corrected"])
    for cell, in_table in summary.rows.items():
        for name, row in in_table.items():
            s, c = row.summary, row.comparison
            writer.writerow(
                [cell, name, row.verdict, s.n, s.mean, s.deviation, c.corrected if c else None]
            )
    return out.getvalue()


def _page(summary: SuiteSummary, records: Mapping[str, Record | None]) -> str:
    """The page: means shaded from the worst to the best of each table, and pictures."""
    begun = [record for record in records.values() if record is not None]
    tables = summary.tables
    charts = suite_charts(tables, records)
    shown = []
    for cell, in_table in summary.rows.items():
        marks = []
        for name, table in summary.tables.items():
            row = in_table.get(name)
            marks.append({"text": entry(row), "shade": _shade(row, table)})
        shown.append({"cell": cell, "marks": marks, "mean": number(summary.mean(cell), 3)})
    record = begun[0]
    return template("suite.html.j2").render(
        title=f"Suite on {record.content['name']}",
        written=max(r.content["written"] for r in begun),
        tables=list(summary.tables),
        rows=shown,
        notes=notes(summary),
        environment=record.content["environment"],
        charts=charts,
        curves=next((chart for name, chart in charts.items() if name.startswith("curves")), None),
        swatches=swatches(*tables.values()),
        library=library() if charts else "",
        behaviour=behaviour(),
    )


def _shade(row: CellRow | None, table: ResultTable) -> float:
    """The position between the worst (0) and the best (1) of a table."""
    means = [r.summary.mean for r in table.rows if r.values]
    if row is None or not row.values or max(means) == min(means):
        return 0.0
    share = (row.summary.mean - min(means)) / (max(means) - min(means))
    return share if table.higher_is_better else 1 - share
