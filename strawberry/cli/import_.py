"""`strawberry import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

UNITS = {"checkpoint": "step", "encoder": "ids", "dataset": "tokens"}


def command(
    file: Annotated[
        Path, typer.Argument(help="A .strawberry checkpoint, or an encoder or data set (.bin).")
    ],
    out: Annotated[
        Path, typer.Argument(help="The run folder, tokenizer.json or folder of tokens to make.")
    ],
    encoder: Annotated[
        Path | None,
        typer.Option(help="The original's encoder that goes with a checkpoint or a data set."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a file of the original project into one of ours.

    Nothing that is in it is run: pickles that do more than hold data are refused.
    """
    from strawberry.cli import context
    from strawberry.cli.console import print_json
    from strawberry.training import import_seed
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()

    imported = import_seed(file, out, encoder=encoder, plugins=context.plugins())
    unit = UNITS[imported.kind]
    if as_json:
        print_json({"kind": imported.kind, "path": str(imported.path), unit: imported.size})
        return
    typer.echo(f"{imported.path}: {imported.kind}, {unit} {imported.size:,}\n  {imported.usage}")
