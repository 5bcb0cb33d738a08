"""`strawberry ablate --dry-run`: budgets, costs and times, before anything is trained."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from strawberry.errors import StrawberryError

if TYPE_CHECKING:
    from strawberry.ablate.sweep import Sweep


def show_estimates(sweeps: dict[str, Sweep], price: float | None, *, as_json: bool) -> None:
    """Print the estimate of a sweep, or of each table of a suite; a single one has no name."""
    from strawberry.cli.console import console, print_json

    before: list[dict[str, Any]] = []
    for sweep in sweeps.values():
        with contextlib.suppress(StrawberryError):  # told by the sweep; its whole alpha is taken
            before.append(sweep.asking.foresee(before))
    if as_json:
        estimates = {name: estimate(sweep, price) for name, sweep in sweeps.items()}
        print_json(estimates.get("", estimates))
        return
    for name, sweep in sweeps.items():
        if name:
            console().print(f"\n{name}", style="bold")
        _show(sweep, price)


def estimate(sweep: Sweep, price: float | None) -> dict[str, Any]:
    """Print each cell: its changes, its cost, and its estimated time from a short probe."""
    from strawberry.ablate.fair import seconds_per_step
    from strawberry.ablate.statistics import as_json
    from strawberry.ablate.tuning import trials_a_cell

    prepared, slots = sweep.prepared, sweep.executor.slots
    each = (prepared.plan.seeds or prepared.plan.max_seeds) + trials_a_cell(prepared.plan)
    cells, total = [], 0.0
    for cell in prepared.live:
        assert cell.recipe is not None
        seconds = seconds_per_step(cell.recipe) * cell.recipe.train.max_iters
        total += seconds * each
        cells.append({
            "cell": cell.name,
            "patch": dict(cell.patch),
            "resized": cell.resized,
            "warnings": prepared.warnings[cell.name],
            **prepared.budgets[cell.name].to_dict(),
            "trials": each,
            "seconds_a_trial": seconds,
        })  # fmt: skip
    skipped = {cell.name: cell.skipped for cell in prepared.cells if cell.recipe is None}
    hours = total / 3600
    return {
        "cells": cells,
        "skipped": skipped,
        "slots": slots,
        "seconds": total / slots,
        "device_hours": hours,
        "cost": None if price is None else price * hours,
        "alpha": sweep.asking.alpha,
        "forecast": as_json(sweep.forecast()),
    }


def _show(sweep: Sweep, price: float | None) -> None:
    """The cells, their budgets and times, and what the seeds can detect."""
    from strawberry.ablate.asking import standing
    from strawberry.ablate.report import outlook
    from strawberry.cli.console import console, say_warnings, show, table
    from strawberry.figures import short

    estimated = estimate(sweep, price)
    out, cells = console(), estimated["cells"]
    rows = table("cell", "changes", "params", "active", "FLOP/token", "cache", "steps", "tokens",
                 "trials", "a trial")  # fmt: skip
    for row in cells:
        changes = ", ".join(f"{k}={v}" for k, v in row["patch"].items()) or "nothing"
        rows.add_row(
            row["cell"], changes, short(row["parameters"]), short(row["active_parameters"]),
            short(row["flops_per_token"]), short(row["cache_bytes"]) + "B", str(row["steps"]),
            short(row["tokens"]), str(row["trials"]), f"{row['seconds_a_trial']:.0f} s",
        )  # fmt: skip
    show(rows, out)
    for name, why in estimated["skipped"].items():
        out.print(f"skipped  {name}: {why}", style="yellow")
    say_warnings({row["cell"]: row["warnings"] for row in cells}, out)
    trials = sum(row["trials"] for row in cells)
    minutes = estimated["seconds"] / 60
    text = f"{trials} trials, {estimated['slots']} at once: about {minutes:.1f} minutes"
    text += " of training, from a probe of each cell; evaluation and start-up are extra"
    out.print(text)
    if price is not None:
        out.print(f"{estimated['device_hours']:.2f} device hours: {estimated['cost']:.2f}")
    for line in standing(sweep.plan, sweep.asking.entry):
        out.print(line)
    for line in outlook.dry(sweep.forecast()):
        out.print(line)
