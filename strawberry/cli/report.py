"""`strawberry report`: write the report of an ablation from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strawberry.cli.options import Json


def command(
    folders: Annotated[list[Path], typer.Argument(help="Folders of ablations, suites or ladders.")],
    as_json: Json = False,
) -> None:
    """Write the report of an ablation, a suite or a ladder again.

    Writes the table, Markdown, CSV and the page from the folder alone.
    """
    from strawberry.ablate.record import Record
    from strawberry.ablate.suite import is_suite
    from strawberry.cli.ablate_report import (
        need_baselines,
        report_of,
        show_suite,
        suite_tables,
        suite_to_json,
    )
    from strawberry.cli.console import print_json
    from strawberry.cli.ladder import ladder_report
    from strawberry.ladder.record import LADDER, LadderRecord

    records, tables = [], []
    for folder in folders:
        if (folder / LADDER).exists():
            records.append(ladder_report(LadderRecord.read(folder), as_json=as_json))
            continue
        if is_suite(folder):
            if as_json:
                records.append(suite_to_json(folder))
            else:
                show_suite(folder)
            tables += suite_tables(folder)
            continue
        table, content = report_of(Record.read(folder), as_json=as_json)
        tables.append(table)
        if content is not None:
            records.append(content)
    if as_json:
        print_json(records)
    need_baselines(tables)
