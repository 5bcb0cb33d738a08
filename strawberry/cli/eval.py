"""`strawberry eval`: measure the validation loss of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge

from strawberry.cli.numbers import Counted, Depth


def command(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    iters: Annotated[
        int | None,
        typer.Option(
            help="Evaluate as many sequences as N training steps use; the recipe's eval_iters "
            "if not given."
        ),
        Ge(1),
        Counted,
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(help="Recursion steps; those of training if not given; may be repeated."),
        Ge(1),
        Depth,
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    average: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With an average of the weights that the run kept."),
    ] = None,
    best: Annotated[
        bool,
        typer.Option(
            "--best", help="Load the checkpoint with the lowest val_loss, not the newest."
        ),
    ] = False,
    split: Annotated[
        str,
        typer.Option(
            help="val or test; the test split is locked, and opening it is recorded in the ledger."
        ),
    ] = "val",
    again: Annotated[bool, typer.Option("--again", help="Open the test split once more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure the validation loss of a run."""
    from strawberry.cli import context
    from strawberry.cli.console import console, print_json
    from strawberry.errors import StrawberryError
    from strawberry.training import evaluate_depths

    if split not in ("val", "test"):
        raise StrawberryError(f"--split: expected val or test, got {split!r}")
    rows = evaluate_depths(
        run,
        steps or [None],
        iters=iters,
        device=device,
        plugins=context.plugins(),
        best=best,
        average=average,
        split="test" if split == "test" else "val",
        again=again,
    )
    rows = [{n.replace("val_", f"{split}_"): v for n, v in row.items()} for row in rows]
    if as_json:
        print_json(rows if steps else rows[0])
        return
    for row in rows:
        for name, value in row.items():
            console().print(f"{name.replace('_', ' '):<18}{value:.6g}")
