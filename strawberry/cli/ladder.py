"""`strawberry ladder`: whether a recipe stays better when it is larger, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from annotated_types import Ge, Gt, Le

command = typer.Typer(help="Say what runs of growing size tell of larger ones.",
                      add_completion=False)  # fmt: skip


@command.callback()
def _ladder() -> None:
    """Say what runs of growing size tell of larger ones."""


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
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
    made = analyse(runs, law=law, shared=shared_exponents, delta=delta, count=draws)
    content: dict[str, Any] = {"fit": to_json(made)}
    if asked is not None:
        content["predictions"] = rows_of(made.predict(asked))
    if as_json:
        print_json(content)
    else:
        _show(content)


def _show(content: dict[str, Any]) -> None:
    """The law, its checks, what follows, and the predictions."""
    from strawberry.cli.console import console, show, table
    from strawberry.ladder import sentences

    out, fitted = console(), content["fit"]
    out.print(f"{fitted['law']}   ({fitted['why']})")
    out.print(
        f"{fitted['runs']} runs of {fitted['sizes']} sizes; a run's loss lies about "
        f"{fitted['noise']:.2%} off the curve\n"
    )
    rows = table("parameter", "value", "90 %", "told by")
    for row in sentences.parameter_rows(fitted):
        rows.add_row(*row)
    show(rows, out)
    out.print()
    for line in [*fitted["notes"], *sentences.check_lines(fitted)]:
        out.print(line)
    out.print()
    rows = table(*sentences.ahead_columns(fitted))
    for cells in sentences.ahead_rows(fitted):
        rows.add_row(*cells)
    show(rows, out)
    for line in sentences.gap_lines(fitted):
        out.print(line)
    if "predictions" in content:
        rows = table("row", "loss", "90 %")
        for number, each in enumerate(content["predictions"], 1):
            span = f"{each['low']:.4f} to {each['high']:.4f}"
            rows.add_row(str(number), f"{each['loss']:.4f}", span)
        out.print()
        show(rows, out)
