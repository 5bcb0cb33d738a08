"""`strawberry plot`: draw loss and learning-rate curves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[list[Path], typer.Argument(help="One or more run folders.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Picture to write; loss.png in the first run folder if not given."),
    ] = None,
) -> None:
    """Plot loss and learning-rate curves of runs."""
    from strawberry.cli.console import console
    from strawberry.runs.plot import plot

    path = plot(runs, out or runs[0] / "loss.png")
    console().print(str(path), soft_wrap=True, highlight=False, markup=False)
