"""`strawberry runs`: list runs, compare them, remove them."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from strawberry.cli.options import Json

if TYPE_CHECKING:
    from strawberry.runs.listing import RunSummary

HELP = "List runs with recipe, loss, age and size; compare or remove them."


class _Group(typer.core.TyperGroup):
    """A group in which what names no command is a folder of `list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with `list` in front where they begin with something else."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


command = typer.Typer(cls=_Group, help=HELP, add_completion=False)


@command.callback()
def _runs() -> None:
    """List runs with recipe, loss, age and size; compare or remove them."""


@command.command("list")
def list_(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders to look in; runs/ if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs, the newest first; trials of ablations are left out."""
    from strawberry.cli.console import console, print_json
    from strawberry.errors import StrawberryError
    from strawberry.runs.listing import RunSummary, find_runs

    where = folders or [Path("runs")]
    for folder in folders or ():
        if not folder.is_dir():
            raise StrawberryError(f"{folder}: there is no such folder")
    paths = dict.fromkeys(run for folder in where if folder.is_dir() for run in find_runs(folder))
    runs, broken = [], []
    for folder in paths:
        try:
            runs.append(RunSummary.read(folder))
        except (StrawberryError, KeyError, TypeError, ValueError) as error:
            broken.append(f"{folder}: can't be read: {error}")
    runs.sort(key=lambda run: run.began, reverse=True)
    if as_json:
        print_json([run.to_dict() for run in runs])
    elif runs:
        _show(runs)
    else:
        console().print(f"no runs in {', '.join(map(str, where))}")
    for line in broken:
        sys.stderr.write(f"{line}\n")


@command.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two runs or more.")],
    as_json: Json = False,
) -> None:
    """Compare runs: their losses, and the fields in which their recipes differ.

    One run each says little: `strawberry ablate` compares with seeds and a verdict.
    """
    from strawberry.cli.console import console, print_json, show, table
    from strawberry.cli.terminal import warn
    from strawberry.errors import StrawberryError
    from strawberry.figures import number, readable
    from strawberry.runs.listing import RunSummary, differences
    from strawberry.runs.plot import labels

    if len(folders) < 2:
        raise StrawberryError("compare needs two runs or more")
    runs = [RunSummary.read(folder) for folder in folders]
    differ = differences(runs)
    if as_json:
        print_json({"runs": [run.to_dict() for run in runs], "fields": differ})
        return
    rows = table("", *labels(folders))
    rows.add_row("validation loss", *(number(run.loss) for run in runs), style="bold")
    rows.add_row("its lowest", *(number(run.best) for run in runs))
    rows.add_row("steps", *(f"{run.step:,} of {run.last:,}" for run in runs))
    rows.add_row("status", *(run.status for run in runs))
    rows.add_row("size", *(readable(run.size) for run in runs))
    for path, values in differ.items():
        rows.add_row(path, *("" if value is None else str(value) for value in values))
    show(rows)
    if not differ:
        console().print("the recipes are the same")
    if len({run.data for run in runs}) > 1:
        warn("the data differ, so that the losses can't be compared")


@command.command()
def remove(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Remove runs, after asking. If one of them can't be removed, none is.

    What is not a run is refused, as are a run that trains, a trial of an ablation, and a folder
    with files that no run writes.
    """
    from strawberry.cli.console import console
    from strawberry.errors import StrawberryError
    from strawberry.figures import number, readable
    from strawberry.runs import listing

    listing.removable(folders)
    runs = [listing.RunSummary.read(folder) for folder in folders]
    out = console()
    for run in runs:
        text = f"{run.folder}: {run.recipe}, step {run.step:,} of {run.last:,}"
        out.print(f"{text}, loss {number(run.loss)}, {readable(run.size)}", soft_wrap=True)
    if not yes and not sys.stdin.isatty():
        raise StrawberryError("there is no terminal to ask on; --yes removes without a question")
    if not yes and not typer.confirm(f"remove {'it' if len(runs) == 1 else 'them'}?"):
        raise typer.Exit(1)
    listing.remove(folders)
    out.print(f"removed {len(runs)}, {readable(sum(run.size for run in runs))}")


def _show(runs: list[RunSummary]) -> None:
    from strawberry.cli.console import console, fitting, show, table
    from strawberry.figures import number, readable

    out = console()
    columns: dict[str, list[str]] = {
        "run": [str(run.folder) for run in runs],
        "recipe": [run.recipe for run in runs],
        "val loss": [number(run.loss) for run in runs],
        "step": [f"{run.step:,}/{run.last:,}" for run in runs],
        "status": [run.status for run in runs],
        "age": [age(run.began) for run in runs],
        "size": [readable(run.size) for run in runs],
    }
    kept, _ = fitting(columns, ["recipe", "step", "size", "age", "status"], out.width)
    rows = table(*kept)
    for column in rows.columns:
        column.justify = "right" if column.header in ("val loss", "step", "age", "size") else "left"
    for cells in zip(*(columns[head] for head in kept), strict=True):
        rows.add_row(*cells)
    show(rows, out)
    many = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    out.print(f"{many}, {readable(sum(run.size for run in runs))}")


def age(began: dt.datetime) -> str:
    """The time since then: `50 s`, `41 min`, `5 h`, `3 days`."""
    seconds = max(0.0, (dt.datetime.now(dt.UTC) - began).total_seconds())
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
