"""`strawberry original`: files of the original project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

command = typer.Typer(help="Import files of the original project.", add_completion=False)

UNITS = {"checkpoint": "step", "encoder": "ids", "dataset": "tokens"}


@command.callback()
def _original() -> None:
    """Import files of the original project."""


@command.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="A .strawberry checkpoint, or an encoder or data set (.bin).")
    ],
    out: Annotated[
        Path, typer.Argument(help="Run folder, tokenizer.json or token folder to create.")
    ],
    encoder: Annotated[
        Path | None,
        typer.Option(help="The encoder of a checkpoint or data set of the original project."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Import a checkpoint, encoder or data set of the original project.

    No code in the file is run: pickles that hold more than data are refused.
    """
    from strawberry.commands import plugins, print_json
    from strawberry_original.importing import import_file

    imported = import_file(file, out, encoder=encoder, plugins=plugins())
    unit = UNITS[imported.kind]
    if as_json:
        print_json({"kind": imported.kind, "path": str(imported.path), unit: imported.size})
        return
    typer.echo(f"{imported.path}: {imported.kind}, {unit} {imported.size:,}\n  {imported.usage}")
