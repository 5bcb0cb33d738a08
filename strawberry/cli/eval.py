"""`strawberry eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    iters: Annotated[
        int | None, typer.Option(min=1, help="Batches; the recipe's eval_iters if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure the validation loss of a run."""
    from strawberry.cli import context
    from strawberry.cli.console import console, print_json
    from strawberry.train import evaluate

    metrics = evaluate(run, iters=iters, device=device, plugins=context.plugins())
    if as_json:
        print_json(metrics)
        return
    for name, value in metrics.items():
        console().print(f"{name.replace('_', ' '):<16}{value:.6g}")
