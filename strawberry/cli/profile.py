"""`strawberry profile`: time and memory of a training step, by component."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge, Le

from strawberry.cli.options import Json, Overrides, RecipePath
from strawberry.figures import readable

if TYPE_CHECKING:
    from strawberry.profiling.step import ProfileRow, StepProfile


def command(
    recipe: RecipePath,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(help="Number of steps to profile."), Ge(1), Le(10_000)] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Also draw a picture (.png, .svg, .pdf).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show where a training step's time and memory go, by component.

    A component's time is its share of a profiled step, times the duration of an unprofiled one.
    FLOPs are counted in matrix products as they run. The peak is measured by a large product on
    this device.
    """
    from dataclasses import asdict

    from strawberry.cli import context
    from strawberry.cli.console import console, print_json
    from strawberry.cli.progress import shown
    from strawberry.profiling.step import draw, profile
    from strawberry.recipe import load_recipe
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()

    loaded = load_recipe(recipe, overrides or (), plugins=context.plugins())
    with shown() as progress:
        profiled = profile(loaded, steps=steps, progress=progress)
    picture = None if out is None else draw(profiled, out)
    if as_json:
        print_json({**asdict(profiled), **({} if picture is None else {"picture": str(picture)})})
        return
    _show(profiled)
    if picture is not None:
        console().print(str(picture), soft_wrap=True)


def _show(profiled: StepProfile) -> None:
    from strawberry.cli.console import console, show, table

    console().print(
        f"{profiled.name}: {1e3 * profiled.seconds:.1f} ms a step of {profiled.tokens:,} tokens "
        f"({profiled.tokens / profiled.seconds:,.0f} a second), "
        f"{profiled.device}, {profiled.dtype}; "
        f"{1e3 * profiled.profiled_seconds:.1f} ms under the profiler",
        soft_wrap=True,
    )
    rows = table(
        "part", "component", "uses", "ms", "share", "backward ms", "keeps", "GFLOP", "GFLOP/s",
        "of peak",
    )  # fmt: skip
    for column in rows.columns[2:]:
        column.justify = "right"
    for row in profiled.rows:
        rows.add_row(*_cells(row, profiled))
    rows.add_row(*_cells(_total(profiled), profiled), style="bold")
    show(rows)
    memory = "" if profiled.peak_bytes is None else f"; peak memory {readable(profiled.peak_bytes)}"
    console().print(
        f"peak: {profiled.peak_flops / 1e9:,.0f} GFLOP/s in a large matrix product{memory}",
        soft_wrap=True,
    )


def _total(profiled: StepProfile) -> ProfileRow:
    from strawberry.profiling.step import ProfileRow

    total = ProfileRow("step", seconds=profiled.seconds)
    for row in profiled.rows:
        total.backward_seconds += row.backward_seconds
        total.kept_bytes += row.kept_bytes
        total.flops += row.flops
    return total


def _cells(row: ProfileRow, part: StepProfile) -> list[Any]:
    rate = row.flops / row.seconds if row.seconds else 0.0
    return [
        row.name,
        row.component,
        str(row.uses or ""),
        f"{1e3 * row.seconds:.2f}",
        f"{row.seconds / part.seconds:.1%}",
        f"{1e3 * row.backward_seconds:.2f}" if row.backward_seconds else "",
        readable(row.kept_bytes) if row.kept_bytes else "",
        f"{row.flops / 1e9:.3f}" if row.flops else "",
        f"{rate / 1e9:,.1f}" if row.flops else "",
        f"{rate / part.peak_flops:.0%}" if row.flops else "",
    ]
