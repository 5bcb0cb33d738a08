"""`strawberry ablate`: compare variants of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge

from strawberry.ablate.plan import PlanFields
from strawberry.cli.options import Executor, Json, Overrides, TrialsFolder
from strawberry.cli.planned import planned

if TYPE_CHECKING:
    from rich.console import Console

    from strawberry.ablate.fair import Budget
    from strawberry.ablate.preparing import PreparedPlan
    from strawberry.ablate.record import Record
    from strawberry.ablate.sweep import Sweep
    from strawberry.cli.ablate_display import SweepDisplay


@planned(PlanFields)
def command(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A recipe or a plan (`ablate: RECIPE`): a file, or one of `strawberry recipes`. "
            "With --reproduce: a trial's folder; with --final: an ablation's."
        ),
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=A,B", help="Values to compare, such as ffn=swiglu,moe."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N|auto", help="Seeds of each cell, or auto. Default: 3.")
    ] = None,
    vary_seed: Annotated[
        str | None, typer.Option(help="What a seed changes: init,data,dropout. Default: all.")
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=A,B", help="Tune each cell over these values, or PATH=LOW..HIGH."
        ),
    ] = None,
    executor: Executor = None,
    out: TrialsFolder = None,
    overrides: Overrides = None,
    noise_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Take the noise of an earlier ablation, to predict what seeds can detect.",
        ),
    ] = None,
    find: Annotated[
        str | None,
        typer.Option(
            metavar="DIFFERENCE", help="Show how many seeds detect this difference: 0.02, or 1%."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the cells, their budgets and times; train nothing."),
    ] = False,
    price: Annotated[
        float | None, typer.Option(help="Price of one device for an hour, for --dry-run."), Ge(0)
    ] = None,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Run a finished trial again from its record.")
    ] = False,
    final: Annotated[
        bool, typer.Option("--final", help="Open the locked test split of a finished ablation.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --final: open the test split once more.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the table alone: no progress.")
    ] = False,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Compare recipe variants: equal budgets, paired seeds, verdicts.

    Every cell trains with the same seeds, and equal seeds give the same data order. The same
    command continues an interrupted ablation, and keeps its finished trials.
    """
    from strawberry.ablate.asking import ask_together
    from strawberry.ablate.axes import parse_axis
    from strawberry.ablate.forecast import Wanted
    from strawberry.ablate.known import earlier_noise
    from strawberry.ablate.planfile import make_plan
    from strawberry.ablate.preparing import prepare
    from strawberry.ablate.suite import make_suite
    from strawberry.ablate.sweep import Sweep, default_folder, make_executor
    from strawberry.cli import ablate_after as after, context
    from strawberry.cli.ablate_display import SweepDisplay
    from strawberry.cli.ablate_estimate import show_estimates
    from strawberry.cli.console import console
    from strawberry.recipe.yaml import parse
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()

    if reproduce:
        after.reproduce(recipe, as_json=as_json)
        return
    if final:
        after.final(recipe, again=again, as_json=as_json)
        return
    plugins = context.plugins()
    options: dict[str, Any] = {
        "vary": dict(parse_axis(text, plugins.registry.kinds) for text in vary or ()),
        "tune": dict(parse_axis(text, plugins.registry.kinds) for text in tune or ()),
        "overrides": tuple(overrides or ()),
        "seeds": int(seeds) if seeds and seeds.isdecimal() else seeds,
        "executor": None if executor is None else parse(executor, "--executor").plain(),
        "vary_seed": vary_seed,
        **given,
    }
    wanted = None if find is None else Wanted.parse(find)
    plans = make_suite(recipe, options, plugins)
    first = next(iter(plans.values()), None) or make_plan(recipe, options, plugins=plugins)
    runner = make_executor(first.executor, plugins)
    if not dry_run:
        runner.warm_up()
    known: dict[str, Budget] = {}  # many tables have the same models
    tables = {name: prepare(plan, plugins, known) for name, plan in plans.items()}
    tables = tables or {"": prepare(first, plugins)}
    folder = out or default_folder(first)
    if plans and out is None:
        folder = folder.with_name(recipe.stem)
    sweeps = {}
    for name, prepared in tables.items():
        noise = None if noise_from is None else earlier_noise(noise_from, prepared, name)
        display = SweepDisplay(console(stderr=as_json), folder / name, runner.slots, quiet=quiet)
        sweeps[name] = (
            Sweep(
                prepared,
                runner,
                folder / name,
                display,
                noise=noise,
                wanted=wanted,
                ledger=folder.parent,
            ),
            display,
        )
    if plans:
        ask_together([sweep.asking for sweep, _ in sweeps.values()])
    if dry_run:
        show_estimates({name: sweep for name, (sweep, _) in sweeps.items()}, price, as_json=as_json)
    elif plans:
        _run_suite(sweeps, recipe, folder, as_json=as_json)
    else:
        _finish(_run(*sweeps[""]), as_json=as_json)


def _run(sweep: Sweep, display: SweepDisplay) -> Record:
    if not display.quiet:
        _say_cells(sweep.prepared, display.console)
    with display:
        return sweep.run()


def _finish(record: Record, *, as_json: bool) -> None:
    from strawberry.cli.ablate_report import need_baselines, report_of
    from strawberry.cli.console import print_json

    table, content = report_of(record, as_json=as_json)
    if content is not None:
        print_json(content)
    need_baselines([table])


def _run_suite(
    sweeps: dict[str, tuple[Sweep, SweepDisplay]], plan: Path, folder: Path, *, as_json: bool
) -> None:
    from strawberry.ablate.report import write_report
    from strawberry.ablate.suite import write_suite
    from strawberry.cli.ablate_report import (
        need_baselines,
        show_suite,
        suite_tables,
        suite_to_json,
    )
    from strawberry.cli.console import print_json

    write_suite(folder, plan, list(sweeps))
    for name, (sweep, display) in sweeps.items():
        display.console.print(f"\n{name}", style="bold")
        # One that is stopped has the report of every table that it finished; `strawberry report`
        # makes their summary.
        write_report(_run(sweep, display))
        display.console.print(f"  {folder / name / 'report.html'}")
    if as_json:
        print_json(suite_to_json(folder))
    else:
        show_suite(folder)
    need_baselines(suite_tables(folder))


def _say_cells(prepared: PreparedPlan, out: Console) -> None:
    from strawberry.cli.console import say_warnings
    from strawberry.figures import short

    for cell in prepared.cells:
        if cell.recipe is None:
            out.print(f"skipped  {cell.name}: {cell.skipped}", style="yellow")
            continue
        cost = prepared.budgets[cell.name]
        text = f"cell     {cell.name}: {short(cost.parameters)} parameters, "
        text += f"{short(cost.flops_per_token)} FLOPs a token"
        out.print(text + (f"; {cell.resized}" if cell.resized else ""))
    say_warnings(prepared.warnings, out)
