"""`strawberry train`: train a recipe's model."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge, Le

from strawberry.cli.numbers import Counted
from strawberry.cli.options import Json, Overrides

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe
    from strawberry.training import RunResult

SAMPLE_TOKENS = 160
LEARNED = 0.8
"""Share of the loss by frequencies alone, below which a sample may have words in order."""


def command(
    recipe: Annotated[
        Path,
        typer.Argument(help="A recipe: a file, or one of `strawberry recipes`, such as air."),
    ],
    run_dir: Annotated[
        Path | None, typer.Option(help="The run folder; runs/NAME if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the newest checkpoint of --run-dir.")
    ] = False,
    fork: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Start a new run of this recipe from the newest checkpoint of RUN.",
        ),
    ] = None,
    fork_step: Annotated[
        int | None,
        typer.Option(help="Start from RUN's checkpoint after this step instead."),
        Ge(1),
        Counted,
    ] = None,
    nproc: Annotated[
        int,
        typer.Option(help="Number of processes on this machine that share each batch."),
        Ge(1),
        Le(4096),
    ] = 1,
    max_restarts: Annotated[
        int,
        typer.Option(help="Number of restarts when one of the --nproc processes dies."),
        Ge(0),
        Counted,
    ] = 0,
    overrides: Overrides = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the result alone: no progress, no sample.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe's model, or resume an interrupted run.

    Ctrl-C saves a checkpoint and prints the command to resume; a second Ctrl-C stops at once. On
    several machines: `torchrun ... -m strawberry train RECIPE --run-dir DIR`.
    """
    from strawberry.cli import context
    from strawberry.cli.console import console, print_json
    from strawberry.cli.terminal import warn
    from strawberry.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or (), plugins=context.plugins())
    _check_start(run_dir, resume, fork, fork_step)

    main = os.environ.get("RANK", "0") == "0"  # of several processes, the one that speaks
    if nproc > 1 and "RANK" not in os.environ:
        raise typer.Exit(_launch(loaded, run_dir, resume, nproc, max_restarts))

    from strawberry.cli.display import RunDisplay
    from strawberry.runs.folder import RunMismatch
    from strawberry.training import Interrupted, train
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()

    out = console(stderr=as_json)
    out.quiet = not main
    try:
        with RunDisplay(out, quiet=quiet) as display:
            result = train(
                loaded,
                run_dir,
                resume=resume,
                fork_of=fork,
                fork_step=fork_step,
                trackers=[display],
                progress=display.preparing,
                warn=warn,
            )
    except Interrupted as stop:
        if not main:
            raise typer.Exit(stop.exit_code) from None
        words = ["strawberry", "train", str(recipe), "--run-dir", str(stop.folder), "--resume"]
        sys.stderr.write(f"stopped after step {stop.step}, saved; resume with:\n")
        sys.stderr.write(f"  {shlex.join([*words, *_options(overrides)])}\n")
        raise typer.Exit(stop.exit_code) from None
    except RunMismatch as error:
        raise RunMismatch(error.folder, recipe, error.lines, _options(overrides)) from error
    if not main:
        return
    if as_json:
        report: dict[str, Any] = {"run": str(result.folder), "steps": result.steps}
        print_json({**report, **result.metrics})
        return
    if quiet:
        out.print(f"run folder: {result.folder}", soft_wrap=True)
        return
    _follow_up(loaded, result)


def _follow_up(recipe: Recipe, result: RunResult) -> None:
    """Print a sample of a finished run's text, and commands to go on with."""
    from strawberry.cli.console import console
    from strawberry.data.opening import data_source
    from strawberry.runs.folder import RunFolder

    out, prompt = console(), data_source(recipe).prompt
    is_text = RunFolder(result.folder).tokenizer_file.exists()
    allowing = _sample(result, prompt) if is_text else ""
    out.print(f"\nrun folder: {result.folder}", soft_wrap=True)
    folder = shlex.quote(str(result.folder))
    given = f" {shlex.quote(prompt.splitlines()[0])}" if prompt else ""
    next_verb = f"generate {folder}{given}{allowing}" if is_text else f"eval {folder}"
    out.print(f"  strawberry {next_verb}", soft_wrap=True)
    out.print(f"  strawberry plot {folder}", soft_wrap=True)


def _check_start(
    run_dir: Path | None, resume: bool, fork: Path | None, fork_step: int | None
) -> None:
    """Raises StrawberryError if the options that say where a run starts don't go together."""
    from strawberry.errors import StrawberryError

    if resume and run_dir is None:
        raise StrawberryError("--resume needs --run-dir, the folder of the run to resume")
    if resume and fork is not None:
        raise StrawberryError("--resume continues a run and --fork starts another; give only one")
    if fork_step is not None and fork is None:
        raise StrawberryError("--fork-step needs --fork, the run whose checkpoint it is")


def _launch(
    recipe: Recipe, run_dir: Path | None, resume: bool, nproc: int, max_restarts: int
) -> int:
    """Train in several processes; returns their common exit code."""
    from strawberry.ranks.launch import launch
    from strawberry.runs.folder import new_run_folder
    from strawberry.training.outline import outline

    # What is wrong with the recipe is said here, once, and not by each of the processes.
    outline(recipe).check_ranks(nproc)
    folder = run_dir if run_dir is not None else new_run_folder(recipe.name)
    return launch(folder, resume=resume, nproc=nproc, max_restarts=max_restarts)


def _options(overrides: list[str] | None) -> list[str]:
    """The options of this command that a suggested command needs too."""
    from strawberry.cli import context

    ranks = os.environ.get("WORLD_SIZE", "1")
    here = ranks == os.environ.get("LOCAL_WORLD_SIZE", "1") != "1"
    sets = [word for override in overrides or () for word in ("--set", override)]
    return [*context.options(), *(("--nproc", ranks) if here else ()), *sets]


def _sample(result: RunResult, prompt: str) -> str:
    """Print the model's continuation of a prompt; nothing if the model is not causal.

    Returns the options that generation needs.
    """
    from strawberry.cli import context
    from strawberry.cli.console import say
    from strawberry.generation import generate, load_run
    from strawberry.model.risks import noncausal

    loaded = load_run(result.folder, plugins=context.plugins())
    if names := noncausal(loaded.recipe, loaded.model):
        sys.stdout.write(f"\nno sample, because the model is not causal: {', '.join(names)}\n")
        return "".join(f" --allow-noncausal {name}" for name in names)
    sys.stdout.write(f"\nsample{_warning(loaded.recipe, result)}:\n")
    say(prompt)
    limit = min(SAMPLE_TOKENS, loaded.recipe.model.block_size)
    generate(loaded, prompt, max_new_tokens=limit, stream=say)
    sys.stdout.write("\n")
    return ""


def _warning(recipe: Recipe, result: RunResult) -> str:
    """A remark on the sample of a model that has hardly learned anything; else nothing."""
    from strawberry.data import open_dataset
    from strawberry.data.frequencies import frequency_loss

    loss, alone = result.metrics.get("val_loss"), frequency_loss(open_dataset(recipe))
    if loss is None or alone is None or loss < LEARNED * alone:
        return ""
    return (
        f" (noise, as expected: after {result.steps:,} steps the loss is {loss:.2f}, and the "
        f"frequencies of tokens alone give {alone:.2f})"
    )
