"""`strawberry recipes`: list the recipes that are installed, or print one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from strawberry.cli import context
from strawberry.cli.console import print_json, show, table
from strawberry.cli.options import Json
from strawberry.recipe.packaged import PackagedRecipe, locate, packaged


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A recipe to print, such as air.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that are installed, or print one.

    Every verb takes such a name in place of a path, and so does `extends` in a recipe. To change
    one: `strawberry recipes air > mine.yaml`.
    """
    known = packaged(context.plugins())
    if name is not None:
        sys.stdout.write(_text(locate(name, context.plugins()), known))
    elif as_json:
        print_json([_as_dict(each) for each in known])
    else:
        rows = table("name", "what", "plugin")
        rows.columns[0].style, rows.columns[2].style = "cyan", "dim"
        for each in known:
            rows.add_row(each.name, each.summary, each.plugin)
        show(rows)


def _as_dict(recipe: PackagedRecipe) -> dict[str, str]:
    return {
        "name": recipe.name,
        "plugin": recipe.plugin,
        "file": str(recipe.file),
        "summary": recipe.summary,
    }


def _text(file: Path, known: list[PackagedRecipe]) -> str:
    """A recipe's text, in which recipes that it extends are named, so that it works anywhere."""
    names = {each.file.resolve(): each.name for each in known}

    def named(match: re.Match[str]) -> str:
        target = (file.parent / match[2]).resolve()
        return match[1] + names.get(target, match[2])

    return re.sub(
        r"^((?:extends|ablate|ladder): *)(\S+)", named, file.read_text(), flags=re.MULTILINE
    )
