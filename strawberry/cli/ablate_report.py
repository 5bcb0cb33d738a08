"""Print the result of an ablation in the terminal or as JSON; writes the report's files too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from strawberry.ablate.record import Record
    from strawberry.ablate.report import ResultTable


def report_of(record: Record, *, as_json: bool) -> tuple[ResultTable, dict[str, Any] | None]:
    """Write the report of an ablation, and show its table, or else give it as JSON."""
    from strawberry.ablate.report import tabulate, write_report
    from strawberry.cli.ablate_table import show_table

    table = tabulate(record)
    files = [str(file) for file in write_report(record, table)]
    if as_json:
        return table, to_json(table, files)
    show_table(table, files)
    return table, None


def need_baselines(tables: Iterable[ResultTable]) -> None:
    """Exit with code 1 if no trial of a table's baseline finished: it compares nothing."""
    from strawberry.cli.console import console

    lacking = [table for table in tables if not table.compares]
    for table in lacking:
        text = f"no trial of the baseline {table.baseline!r} finished: nothing is compared"
        console(stderr=True).print(text, style="red")
    if lacking:
        raise typer.Exit(1)


def suite_tables(folder: Path) -> list[ResultTable]:
    """The tables of a suite that were begun."""
    from strawberry.ablate.report import tabulate
    from strawberry.ablate.suite import read_suite

    return [tabulate(record) for record in read_suite(folder).values() if record is not None]


def suite_to_json(folder: Path) -> dict[str, Any]:
    """Write a suite's reports; its tables as JSON."""
    from strawberry.ablate.report.summary import summarise, write_summary
    from strawberry.ablate.suite import read_suite

    records = read_suite(folder)
    summary = summarise(records)
    files = [str(file) for file in write_summary(folder, records, summary)]
    tables = {name: to_json(table, []) for name, table in summary.tables.items()}
    return {"metric": summary.metric, "tables": tables, "files": files}


def show_suite(folder: Path) -> None:
    """Write a suite's reports; its table of tables, and where the rest is."""
    from strawberry.ablate.report import summary as report
    from strawberry.ablate.suite import read_suite
    from strawberry.cli.console import console, show, table

    records = read_suite(folder)
    summary = report.summarise(records)
    files = [str(file) for file in report.write_summary(folder, records, summary)]
    out = console()
    rows = table(*report.columns(summary))
    for row in report.entries(summary):
        rows.add_row(*row)
    out.print()
    show(rows, out)
    out.print()
    for text in [*report.notes(summary), *(f"  {file}" for file in files)]:
        out.print(text)


def to_json(table: ResultTable, files: list[str]) -> dict[str, Any]:
    """The table as JSON."""
    from strawberry.ablate.statistics import as_json

    report = as_json(table)
    for row, cell in zip(table.rows, report["rows"], strict=True):
        cell["verdict"] = row.verdict
    return {**report, "files": files}
