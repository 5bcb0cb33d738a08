"""Rich output for people, and JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 160
"""Columns where there is no terminal to ask: wide enough that paths and names stay whole."""


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji, no guessed highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(
        file=stream, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False
    )


HARMLESS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")
"""What stands for control characters, tabs and ends of lines aside, on a terminal."""


def say(text: str) -> None:
    """Write what a model made to standard output.

    To a terminal it goes without control characters: a byte that a model makes up can be the first
    of a sequence that changes the terminal.
    """
    sys.stdout.write(text.translate(HARMLESS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def table(*columns: str, title: str | None = None) -> Table:
    """A light table in the style that all verbs share; its cells hold plain text."""
    grid = Table(
        box=None, title=title, title_justify="left", title_style="bold", header_style="dim",
        pad_edge=False, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for column in columns:
        grid.add_column(column, overflow="fold")
    return grid


def fitting(
    columns: Mapping[str, Sequence[str]], spare: Sequence[str], width: int
) -> tuple[list[str], list[str]]:
    """The columns of a table that fit into a width, and those that are left out.

    Args:
        columns: the texts of each, by its head.
        spare: those that may be left out, the first of them first.
        width: characters of a line.
    """
    kept, left = list(columns), list[str]()
    needs = {head: max(map(cell_len, (head, *texts))) + 2 for head, texts in columns.items()}
    for head in (head for head in spare if head in columns):
        if sum(needs[each] for each in kept) - 2 <= width:
            break
        kept.remove(head)
        left.append(head)
    return kept, left


def show(renderable: Any, out: Console | None = None) -> None:
    """Print something rich; into a pipe, without the blanks that pad its lines."""
    out = out or console()
    if out.is_terminal:
        out.print(renderable)
        return
    with out.capture() as captured:
        out.print(renderable)
    lines = (line.rstrip() for line in captured.get().splitlines())
    out.file.write("".join(f"{line}\n" for line in lines))


def print_json(value: Any) -> None:
    """A value as JSON on standard output; what JSON doesn't know is written as its text."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
