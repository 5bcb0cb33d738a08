"""A suite: the same comparison under several settings of the recipe, with a table for each.

A plan is a suite if it has `suite:`, a mapping from table names to settings of the recipe. Tables
are ablations in their own folders. They share alpha, so it holds for the whole suite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from strawberry.ablate.plan import Plan
from strawberry.ablate.planfile import is_plan, read_plan
from strawberry.ablate.record import RECORD, Record
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.plugin import Plugins
from strawberry.runs.ledger import SUITE


def suite_names(path: Path) -> list[str]:
    """The tables of a plan's file, in order; none for any other file.

    Raises RecipeError if the plan is wrong.
    """
    return list(read_plan(path, {}).tables) if is_plan(path) else []


def make_suite(
    path: Path, options: Mapping[str, Any], plugins: Plugins | None = None
) -> dict[str, Plan]:
    """The plan of each table of a suite; raises as `make_plan` does."""
    file = read_plan(path, options, plugins)
    plans = {name: file.table(name) for name in file.tables}
    return {name: replace(plan, alpha=plan.alpha / len(plans)) for name, plan in plans.items()}


def write_suite(folder: Path, path: Path, names: list[str]) -> None:
    """Record which tables a folder will have."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SUITE, json.dumps({"plan": str(path), "tables": names}, indent=1))


def is_suite(folder: Path) -> bool:
    """Return whether a folder contains a suite."""
    return (folder / SUITE).exists()


def read_suite(folder: Path) -> dict[str, Record | None]:
    """The records of a suite's tables, in the plan's order; None for those that have not started.

    Raises StrawberryError if the folder has no suite, or no table has started.
    """
    try:
        names = json.loads((folder / SUITE).read_text())["tables"]
    except (OSError, ValueError, KeyError) as error:
        raise StrawberryError(f"{folder}: contains no suite ({SUITE})") from error
    records = {
        name: Record.read(folder / name) if (folder / name / RECORD).exists() else None
        for name in names
    }
    if not any(records.values()):
        raise StrawberryError(f"{folder}: no table of this suite has started")
    return records
