"""`strawberry ladder`: whether a recipe stays better when it is larger, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from annotated_types import Ge, Gt, Le

from strawberry.cli.numbers import Counted
from strawberry.cli.options import Executor, Json, Overrides, TrialsFolder
from strawberry.cli.planned import planned
from strawberry.ladder.plan import LadderFields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strawberry.ladder.cooldowns import Branch
    from strawberry.ladder.plan import LadderPlan
    from strawberry.ladder.record import LadderRecord
    from strawberry.ladder.rungs import Rung

HELP = "Say what runs of growing size tell of larger ones."


class _Group(typer.core.TyperGroup):
    """A group in which what names no command is the recipe of `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with `run` in front where they begin with something else."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


command = typer.Typer(cls=_Group, help=HELP, add_completion=False)


@command.callback()
def _ladder() -> None:
    """Say what runs of growing size tell of larger ones."""


@command.command("run")
@planned(LadderFields)
def run(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe, or a plan (`ladder: RECIPE`): a file or a name.")
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=A,B", help="The architectures, such as attention=mha,linear."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Training tokens of the first rung, for each trial."),
        Ge(1),
        Le(10**18),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(help="Training FLOPs of the first rung instead."),
        Gt(0),
        Le(1e30),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Training seeds of each size; 3."), Ge(1), Counted
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(help="What architectures agree in on a rung; flops. none, params, time too."),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=A,B", help="Tried on the lowest rungs, for all alike."),
    ] = None,
    cooldowns: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE,SHARE",
            help="Shares of a rung's tokens at which further runs end, which branch from the "
            "stable part of its own: 0.25,0.5.",
        ),
    ] = None,
    executor: Executor = None,
    out: TrialsFolder = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the rungs and what they take; train none.")
    ] = False,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Train a recipe at growing sizes, and say what larger ones would come to.

    Interrupted, the same command goes on, and never trains again what is done.
    """
    from strawberry.ablate.axes import parse_axis
    from strawberry.ablate.sweep import make_executor
    from strawberry.cli import context
    from strawberry.cli.console import print_json
    from strawberry.ladder.plan import read_ladder
    from strawberry.ladder.rungs import make_rungs
    from strawberry.recipe.yaml import parse
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()
    plugins = context.plugins()
    options: dict[str, Any] = {
        "vary": dict(parse_axis(text, plugins.registry.kinds) for text in vary or ()),
        "tune": dict(parse_axis(text, plugins.registry.kinds) for text in tune or ()),
        "overrides": tuple(overrides or ()),
        "executor": None if executor is None else parse(executor, "--executor").plain(),
        "tokens": tokens,
        "flops": flops,
        "seeds": seeds,
        "match": match,
        "cooldowns": None if cooldowns is None else parse(f"[{cooldowns}]", "--cooldowns").plain(),
        **given,
    }
    plan = read_ladder(recipe, options, plugins)
    runner = make_executor(plan.plan.executor, plugins)
    if not dry_run:
        runner.warm_up()
    rungs = make_rungs(plan, plugins)
    _say_rungs(plan, rungs, stderr=as_json)
    if dry_run:
        _estimate(plan, rungs, runner.slots, as_json=as_json)
        return
    record = _climb(plan, rungs, runner, out or plan.folder, stderr=as_json)
    content = ladder_report(record, as_json=as_json)
    if as_json:
        print_json(content)


def _climb(
    plan: LadderPlan, rungs: list[Rung], runner: Any, folder: Path, *, stderr: bool
) -> LadderRecord:
    """Train the rungs, with a display for each."""
    from strawberry.cli.ablate_display import RoundDisplay
    from strawberry.cli.console import console
    from strawberry.ladder.climb import Ladder, folder_of

    out = console(stderr=stderr)

    def watch(rung: Rung, branch: Branch | None) -> RoundDisplay:
        what = "" if branch is None else f", cooldowns at {branch.share:g} of its tokens"
        out.print(f"\nrung {rung.number + 1} of {len(rungs)}{what}", style="bold")
        return RoundDisplay(out, folder / folder_of(rung, branch), runner.slots)

    return Ladder(plan, rungs, runner, folder, watch).run()


def ladder_report(record: LadderRecord, *, as_json: bool) -> dict[str, Any]:
    """Write the report of a ladder, show it unless it is to be JSON, and return it as that."""
    from strawberry.cli.console import console
    from strawberry.ladder.report import answers, write_report
    from strawberry.ladder.results import results_of

    results = results_of(record)
    content = results.to_json()
    content["files"] = [str(file) for file in write_report(results, content)]
    if as_json:
        return content
    out = console()
    _show_fit(content["fit"])
    for line in answers(content):
        out.print(line)
    for line in content["warnings"]:
        out.print(f"warning: {line}", style="yellow")
    for file in content["files"]:
        out.print(f"  {file}")
    return content


def _say_rungs(plan: LadderPlan, rungs: list[Rung], *, stderr: bool) -> None:
    """Every architecture on every rung, before anything is trained."""
    from strawberry.cli.console import console, show, table
    from strawberry.ladder import sentences
    from strawberry.ladder.plan import RULES

    out = console(stderr=stderr)
    rows = table(*sentences.RUNG_COLUMNS)
    content = {"rungs": [{"sizes": rung.all_rows()} for rung in rungs]}
    for row in sentences.rung_rows(content):
        rows.add_row(*row)
    show(rows, out)
    out.print(f"{RULES[plan.how.rate]}.")
    if plan.plan.tune:
        tuned = ", ".join(plan.plan.tune)
        out.print(f"Tuned on the lowest {plan.how.tuned_rungs}: {tuned}; the rest carries over.")


def _estimate(plan: LadderPlan, rungs: list[Rung], slots: int, *, as_json: bool) -> None:
    """What the rungs would take, by a few steps of each."""
    from strawberry.ablate.fair import seconds_per_step
    from strawberry.ablate.tuning import trials_a_cell
    from strawberry.cli.console import console, print_json

    rows: list[dict[str, Any]] = []
    total = 0.0
    for rung in rungs:
        each = (plan.plan.seeds or 3) + trials_a_cell(rung.prepared.plan)
        for cell in rung.prepared.live:
            assert cell.recipe is not None
            a_step = seconds_per_step(cell.recipe)
            seconds = a_step * cell.recipe.train.max_iters
            further = a_step * sum(
                branch.budget(cell.name).steps - branch.shared[cell.name]
                for branch in rung.branches
            )
            total += seconds * each + further * (plan.plan.seeds or 3)
            rows.append({"rung": rung.number, "architecture": cell.name, "trials": each,
                         "seconds_a_trial": seconds, "seconds_of_cooldowns": further})  # fmt: skip
    if as_json:
        sizes = [row for rung in rungs for row in rung.all_rows()]
        print_json({"rungs": sizes, "times": rows, "seconds": total / slots})
        return
    for row in rows:
        further = row["seconds_of_cooldowns"]
        beside = f", and {further:.0f} s of cooldowns for each seed" if further else ""
        console().print(f"rung {row['rung'] + 1}  {row['architecture']}: {row['trials']} trials of "
                        f"{row['seconds_a_trial']:.0f} s{beside}")  # fmt: skip
    console().print(f"about {total / slots / 60:.1f} minutes of training, {slots} at once")


@command.command("fit")
def fit(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="RUNS.CSV",
            help="Columns parameters, tokens or training_flops (6 N D), loss in nats a token, and "
            "perhaps architecture and seed; of recursive models also once, recurred, steps.",
        ),
    ],
    predict: Annotated[
        Path | None,
        typer.Option(metavar="OTHER.CSV", help="Sizes of which the loss is asked, a row each."),
    ] = None,
    law: Annotated[
        str | None,
        typer.Option(
            help="size_and_tokens, compute or recursion; else the one that the table allows."
        ),
    ] = None,
    shared_exponents: Annotated[
        bool, typer.Option("--shared-exponents", help="The same exponents for all architectures.")
    ] = False,
    delta: Annotated[
        float | None,
        typer.Option(help="Where the Huber loss becomes linear, in ln L; 0.001 of many runs."),
        Gt(0),
        Le(10),
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of the bootstrap."), Ge(20), Le(100_000)] = 200,
    as_json: Json = False,
) -> None:
    """Fit a law of loss to a table of runs, and predict other sizes.

    Intervals are at 90 %. Those of predictions are of a single run, its noise included.
    """
    from strawberry.cli.console import print_json
    from strawberry.errors import StrawberryError
    from strawberry.ladder.analysis import analyse, rows_of, to_json
    from strawberry.ladder.laws import TERMS
    from strawberry.ladder.table import read_runs
    from strawberry.plugin.words import did_you_mean

    if law is not None and law not in TERMS:
        raise StrawberryError(
            f"--law: expected {', '.join(TERMS)}, got {law!r}{did_you_mean(law, TERMS)}"
        )
    runs = read_runs(table)
    asked = None if predict is None else read_runs(predict, asked=True)
    analysis = analyse(runs, law=law, shared=shared_exponents, delta=delta, count=draws)
    content: dict[str, Any] = {"fit": to_json(analysis)}
    if asked is not None:
        content["predictions"] = rows_of(analysis.predict(asked))
    if as_json:
        print_json(content)
    else:
        _show(content)


def _show(content: Mapping[str, Any]) -> None:
    """The law, its checks, what follows, and the predictions."""
    from strawberry.cli.console import console, show, table
    from strawberry.ladder import sentences

    out, fitted = console(), content["fit"]
    _show_fit(fitted)
    for line in [*fitted["notes"], *sentences.check_lines(fitted), *sentences.gap_lines(fitted)]:
        out.print(line)
    if "predictions" in content:
        rows = table("row", "loss", "90 %")
        for number, each in enumerate(content["predictions"], 1):
            span = f"{each['low']:.4f} to {each['high']:.4f}"
            rows.add_row(str(number), f"{each['loss']:.4f}", span)
        out.print()
        show(rows, out)


def _show_fit(fitted: Mapping[str, Any]) -> None:
    """The law's parameters, and the losses of larger sizes."""
    from strawberry.cli.console import console, show, table
    from strawberry.ladder import sentences

    out = console()
    out.print(f"\n{fitted['law']}   ({fitted['why']})")
    out.print(
        f"{fitted['runs']} runs of {fitted['sizes']} sizes; a run's loss lies about "
        f"{fitted['noise']:.2%} off the curve\n"
    )
    rows = table("parameter", "value", "90 %", "source")
    for row in sentences.parameter_rows(fitted):
        rows.add_row(*row)
    show(rows, out)
    out.print()
    rows = table(*sentences.ahead_columns(fitted))
    for cells in sentences.ahead_rows(fitted):
        rows.add_row(*cells)
    show(rows, out)
    out.print()
