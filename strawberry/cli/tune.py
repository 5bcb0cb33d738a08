"""`strawberry tune`: good learning rates, batch size and warm-up for a recipe on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge, Gt, Le

from strawberry.cli.numbers import Counted
from strawberry.cli.options import Executor, Json, Overrides, TrialsFolder


def command(
    recipe: Annotated[Path, typer.Argument(help="The recipe.")],
    minutes: Annotated[
        float, typer.Option(help="What the trials may take together; 10."), Gt(0), Le(1e5)
    ] = 10.0,
    width: Annotated[
        int | None,
        typer.Option(
            help="Width of the model in the trials; a quarter of the recipe's from 256 on.",
        ),
        Ge(1),
        Counted,
    ] = None,
    metric: Annotated[str, typer.Option(help="Metric to compare; val_loss.")] = "val_loss",
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Path of the tuned recipe; tuned.yaml in the folder."),
    ] = None,
    executor: Executor = None,
    out: TrialsFolder = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find a recipe's rate, batch size and warm-up within minutes.

    All trials of a round take equally long here. Settings that fall behind are dropped early, the
    recipe's own never. Writes a recipe that extends the one given. The same command continues an
    interrupted search.
    """
    from strawberry.ablate.sweep import make_executor
    from strawberry.cli import context
    from strawberry.cli.ablate_display import RoundDisplay
    from strawberry.cli.console import console, print_json, show, table
    from strawberry.errors import StrawberryError
    from strawberry.recipe.yaml import parse
    from strawberry.training.uncompiled import spare_compiler
    from strawberry.tune import result
    from strawberry.tune.search import Search, TunePlan

    spare_compiler()
    plugins = context.plugins()
    runs = "local" if executor is None else parse(executor, "--executor").plain()
    plan = TunePlan(recipe, minutes, tuple(overrides or ()), metric, runs, width)
    runner = make_executor(runs, plugins)
    folder, screen = out or plan.folder, console(stderr=as_json)

    def watch(title: str, where: Path) -> RoundDisplay:
        screen.print(f"\n{title}", style="bold")
        return RoundDisplay(screen, where, runner.slots)

    target = write or folder / result.TUNED
    if write is not None and not write.absolute().parent.is_dir():
        raise StrawberryError(f"--write: no such folder: {str(write.parent)!r}")
    if write is not None and write.exists() and write.samefile(recipe):
        raise StrawberryError("--write: is the recipe that is tuned; name another file")
    search = Search(plan, plugins, runner, folder, watch, screen.print)
    runner.warm_up()
    search.run()
    worth = result.write(search, target)
    if as_json:
        print_json({**result.to_json(search), "recipe": str(target), "plan": str(worth)})
        return
    grid = table(*result.columns(search))
    for row in result.rows(search):
        grid.add_row(*row)
    screen.print()
    show(grid, screen)
    screen.print()
    for line in result.story(search)[1:]:
        screen.print(line)
    screen.print(f"  {target}")
    screen.print(f"What it is worth: strawberry ablate {worth}")
