"""`strawberry ablate --reproduce` and `--final`: work on finished trials and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def final(folder: Path, *, again: bool, as_json: bool) -> None:
    """Measure a finished ablation, or a suite's tables, on the locked test split."""
    from strawberry.ablate import final as last
    from strawberry.ablate.suite import is_suite, read_suite
    from strawberry.cli.ablate_report import report_of
    from strawberry.cli.console import console, print_json

    folders = [folder / name for name in read_suite(folder)] if is_suite(folder) else [folder]
    results: list[dict[str, Any]] = []
    for each in folders:
        record = last.final(each, again=again, say=console(stderr=True).print)
        _, content = report_of(record, as_json=as_json)
        if content is not None:
            results.append(content)
    if as_json:
        print_json(results if is_suite(folder) else results[0])


def reproduce(folder: Path, *, as_json: bool) -> None:
    """Run a finished trial again; exit with code 1 if the result differs."""
    from strawberry.ablate import reproduce as again
    from strawberry.cli.console import console, print_json

    reproduction = again.reproduce(folder)
    if as_json:
        print_json(reproduction.to_dict())
    else:
        out = console()
        out.print(
            f"{reproduction.name}: {reproduction.metric} was {reproduction.before!r}, is "
            f"now {reproduction.after!r}"
        )
        for line in reproduction.environment:
            out.print(f"  {line}")
        out.print(reproduction.verdict, style="green" if reproduction.agrees else "red")
    if not reproduction.agrees:
        raise typer.Exit(1)
