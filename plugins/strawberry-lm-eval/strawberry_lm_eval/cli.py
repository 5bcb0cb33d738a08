"""`strawberry tasks`: which tasks tell models of a size apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge, Le

from strawberry_lm_eval.deciding import TASKS, suggested


def tasks(
    run: Annotated[Path | None, typer.Argument(help="A run folder or recipe of that size.")] = None,
    parameters: Annotated[
        int | None, typer.Option(help="Number of parameters, instead of a run."), Ge(1), Le(10**15)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Suggest tasks for a model's size, by how well small models decide them."""
    from dataclasses import asdict

    import strawberry
    from strawberry.commands import plugins, print_json, show, table

    size = parameters
    if size is None and run is not None:
        model = strawberry.build(strawberry.load_recipe(run, plugins=plugins()), "meta")
        size = sum(parameter.numel() for parameter in model.parameters())
    chosen = TASKS if size is None else suggested(size)
    if as_json:
        print_json([asdict(task) for task in chosen])
        return
    rows = table("tasks", "from", "to", "right decisions", "what it asks")
    for task in chosen:
        right = "" if task.decides is None else f"{task.decides:.0%}"
        rows.add_row(task.name, _short(task.least), _short(task.most), right, task.asks)
    show(rows)
    typer.echo(
        "right decisions: how often the better of two models at 150M is the better one at 1B\n"
        "(arXiv 2508.13144); 50% is a coin. Where a score is near chance, take the bits of the\n"
        "right answer."
    )


def _short(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e9:g}B" if count >= 10**9 else f"{count / 1e6:g}M"
