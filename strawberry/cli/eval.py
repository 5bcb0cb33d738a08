"""`strawberry eval`: measure the validation loss of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge

from strawberry.cli.numbers import Counted, Depth
from strawberry.cli.options import Average, Best, Device, Json


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
    device: Device = "auto",
    average: Average = None,
    best: Best = False,
    split: Annotated[
        str,
        typer.Option(
            help="val or test; the test split is locked, and opening it is recorded in the ledger."
        ),
    ] = "val",
    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Score these tasks of lm-evaluation-harness instead, separated by commas "
            "(plugin strawberry-lm-eval).",
        ),
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="With --tasks: a folder with tasks of your own (YAML).")
    ] = None,
    fewshot: Annotated[
        int | None,
        typer.Option(help="With --tasks: examples before each question; the task's if not given."),
        Ge(0),
        Counted,
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="With --tasks: the first N items of each task only."),
        Ge(1),
        Counted,
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="With --tasks: sequences computed together."), Ge(1), Counted
    ] = 16,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache", help="With --tasks: keep answers, and reuse those of these weights."
        ),
    ] = False,
    samples: Annotated[
        Path | None,
        typer.Option(help="With --tasks: a folder for every item with its answers (JSON Lines)."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Open the test split once more.")] = False,
    as_json: Json = False,
) -> None:
    """Measure the validation loss of a run, or its scores on tasks."""
    from strawberry.cli import context
    from strawberry.cli.console import console, print_json
    from strawberry.cli.tasks import scores as task_rows, show as show_tasks
    from strawberry.errors import StrawberryError
    from strawberry.generation.load import load_run
    from strawberry.plugin import TaskOptions
    from strawberry.training import evaluate_depths

    if split not in ("val", "test"):
        raise StrawberryError(f"--split: expected val or test, got {split!r}")
    if tasks is not None:
        if split != "val" or iters is not None:
            raise StrawberryError("--tasks has items of its own: leave out --split and --iters")
        options = TaskOptions(include_path, fewshot, limit, batch_size, cache, samples)
        plugins = context.plugins()
        loaded = load_run(run, device=device, plugins=plugins, best=best, average=average)
        scores = task_rows(loaded, tasks, steps or [None], options, plugins)
        print_json(scores) if as_json else show_tasks(scores)
        return
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
