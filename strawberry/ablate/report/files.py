"""The report as files: Markdown, CSV, and one self-contained page."""

from __future__ import annotations

from pathlib import Path

from strawberry.ablate.record import Record
from strawberry.ablate.report.page import page
from strawberry.ablate.report.plots import pictures
from strawberry.ablate.report.table import ResultTable, tabulate
from strawberry.ablate.report.text import as_csv, markdown
from strawberry.files.atomic import write_atomic


def write_report(record: Record, table: ResultTable | None = None) -> list[Path]:
    """Write `report.md`, `report.csv` and `report.html` into the ablation's folder.

    The pictures of `report.md` go to `pictures`. `table` is the record's table, if already
    computed.
    """
    table = table or tabulate(record)
    drawn = {f"pictures/{name}.svg": svg for name, svg in pictures(record, table).items()}
    files = {
        "report.md": markdown(record, table, {path: title for path, (title, _) in drawn.items()}),
        "report.csv": as_csv(table),
        "report.html": page(record, table),
    }
    (record.folder / "pictures").mkdir(exist_ok=True)
    for name, text in {**{path: svg for path, (_, svg) in drawn.items()}, **files}.items():
        write_atomic(record.folder / name, text)
    return [record.folder / name for name in files]
