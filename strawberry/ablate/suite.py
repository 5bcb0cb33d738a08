"""A suite: the same comparison under several settings of the recipe, a table for each.

A plan has one where it says `suite:`, by name what each table sets in the recipe. Tables are
ablations of their own, in folders of their own; the chance of a false finding is shared out among
them, so that it holds for the whole suite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from strawberry.ablate.plan import Plan, is_plan, make_plan
from strawberry.ablate.record import RECORD, Record
from strawberry.errors import Problem, RecipeError, StrawberryError
from strawberry.recipe.yaml import read_tree
from strawberry.train.run import write_atomic

SUITE = "suite.json"


def suite_names(path: Path) -> list[str]:
    """The tables that a plan's file has, in order; none for any other file.

    Raises RecipeError for names or settings that can't be.
    """
    if not is_plan(path):
        return []
    tables = read_tree(path).value.get("suite")
    if tables is None:
        return []
    if not tables.is_map or not tables.value:
        message = "expected by name what each table sets in the recipe"
        raise RecipeError([Problem(message, tables.location, "suite")])
    problems = [
        Problem("expected a mapping of paths in the recipe", node.location, f"suite.{name}")
        for name, node in tables.value.items()
        if not node.is_map
    ]
    problems += [
        Problem(
            "a table's name is a folder's, without / or a dot first", tables.keys[name], "suite"
        )
        for name in tables.value
        if "/" in name or name.startswith(".")
    ]
    if problems:
        raise RecipeError(problems)
    return list(tables.value)


def make_suite(path: Path, options: Mapping[str, Any]) -> dict[str, Plan]:
    """The plan of each table of a suite; raises as `make_plan` does."""
    names = suite_names(path)
    plans = {name: make_plan(path, options, name) for name in names}
    return {name: replace(plan, alpha=plan.alpha / len(names)) for name, plan in plans.items()}


def write_suite(folder: Path, path: Path, names: list[str]) -> None:
    """Note which tables a folder is to have."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SUITE, json.dumps({"plan": str(path), "tables": names}, indent=1))


def is_suite(folder: Path) -> bool:
    """Whether a folder holds a suite."""
    return (folder / SUITE).exists()


def read_suite(folder: Path) -> dict[str, Record | None]:
    """The records of a suite's tables, in the plan's order; None for those not begun yet.

    Raises StrawberryError if there is no suite in that folder, or nothing of it yet.
    """
    try:
        names = json.loads((folder / SUITE).read_text())["tables"]
    except (OSError, ValueError, KeyError) as error:
        raise StrawberryError(f"{folder}: holds no suite ({SUITE})") from error
    found = {
        name: Record.read(folder / name) if (folder / name / RECORD).exists() else None
        for name in names
    }
    if not any(found.values()):
        raise StrawberryError(f"{folder}: no table of this suite has been begun")
    return found
