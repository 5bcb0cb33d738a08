"""`strawberry check`: check a component, or a recipe's model, against its contract."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from strawberry.cli.options import Json

if TYPE_CHECKING:
    from strawberry.check import CheckResult, Subject

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="COMPONENT|RECIPE",
            help="Component or recipe, such as attention/mha, mha, air or mine.yaml.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="K=V", help="A field of the component, or an override of the recipe."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="Run this check alone; may be repeated."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw activations (.png, .svg), with coordinates."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that a component, or a recipe's model, keeps its contract.

    Checks causality, batch independence, cache, gradients, forms, costs and learning. A component
    is put into a small model; a recipe's model is checked directly. Exits with code 1 if a check
    fails. `--only coordinates` trains for 10 steps at four widths: activations, and what matrices
    learn, must stay alike.
    """
    from strawberry.check import run
    from strawberry.cli.console import console, print_json
    from strawberry.errors import StrawberryError
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()

    if picture is not None and list(only or ()) != ["coordinates"]:
        raise StrawberryError("--picture needs `--only coordinates`")
    chosen = replace(_subject(subject, overrides or []), picture=picture)
    outcomes = []
    out = console()
    for outcome in run(chosen, only or ()):
        outcomes.append(outcome)
        if not as_json:
            out.print(_line(outcome), soft_wrap=True)
    failed = [outcome.check for outcome in outcomes if outcome.verdict == "failed"]
    if as_json:
        rows = [asdict(outcome) for outcome in outcomes]
        print_json({"subject": chosen.name, "passed": not failed, "checks": rows})
    else:
        out.print(_summary(chosen, outcomes), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _subject(word: str, overrides: list[str]) -> Subject:
    """The recipe at that path, or the component of that name."""
    from strawberry.check import of_component, of_recipe
    from strawberry.cli import context
    from strawberry.cli.components import kind_of
    from strawberry.recipe import load_recipe
    from strawberry.recipe.packaged import by_name

    plugins = context.plugins()
    if Path(word).suffix in (".yaml", ".yml", ".json") or Path(word).is_dir():
        return of_recipe(load_recipe(word, overrides, plugins=plugins))
    component = any(word == entry.name for entry in plugins.registry.entries())
    if not component and by_name(word, plugins) is not None:
        return of_recipe(load_recipe(word, overrides, plugins=plugins))
    kind, slash, name = word.partition("/")
    if not slash or kind not in plugins.registry.kinds:
        kind, name = kind_of(plugins.registry, word), word
    return of_component(kind, name, _fields(overrides), plugins=plugins)


def _fields(overrides: list[str]) -> dict[str, Any]:
    """Parse `["window=8"]` into fields; values are YAML."""
    from strawberry.errors import StrawberryError
    from strawberry.recipe.yaml import parse

    fields = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise StrawberryError(f"--set {text}: a field is name=value, such as window=8")
        fields[name] = parse(value, f"--set {text}")
    return fields


def _line(outcome: CheckResult) -> Text:
    line = Text.assemble(
        (f"{outcome.verdict:<8}", _STYLES[outcome.verdict]), (f"{outcome.check:<13}", "bold")
    )
    line.append(outcome.detail)
    line.append(f"  {outcome.seconds:.1f} s", style="dim")
    return line


def _summary(subject: Subject, outcomes: list[CheckResult]) -> Text:
    counts = dict.fromkeys(_STYLES, 0)
    for outcome in outcomes:
        counts[outcome.verdict] += 1
    seconds = sum(outcome.seconds for outcome in outcomes)
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    style = _STYLES["failed" if counts["failed"] else "passed"]
    return Text.assemble((subject.name, "bold"), ": ", (said, style), f" in {seconds:.1f} s")
