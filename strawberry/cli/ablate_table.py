"""A table of an ablation in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from strawberry.ablate.report import ResultTable

STYLES = {
    "better": "green", "worse": "red", "equivalent": "cyan", "baseline": "bold", "failed": "red",
    "disqualified": "bold red",
}  # fmt: skip
"""Style of a row, by its verdict."""
SPARE = (
    "cache", "FLOP/token", "params", "tokens/s", "steps to loss", "bits/byte", "windows",
    "interval", "over", "detectable", "sd", "seeds", "p", "against",
)  # fmt: skip
"""Columns that a narrow terminal goes without, the first of them first."""


def show_table(table: ResultTable, files: list[str]) -> None:
    """The ranked table, what is not in it, and where the rest is."""
    from strawberry.ablate.report import outlook
    from strawberry.ablate.report.text import EFFECTS, FACTORS, gone, intervals_of, noise, shown
    from strawberry.cli.console import console, say_warnings
    from strawberry.figures import number

    out = console()
    narrow = ("interval", "active", "tokens", "tuning")
    columns = {name: make for name, make in shown(table).items() if name not in narrow}
    out.print(f"\n{intervals_of(table)}")
    if table.effects:
        styles = [STYLES.get(effect.comparison.verdict) for effect in table.effects]
        _show_fitting(EFFECTS, table.effects, styles, out)
        out.print(FACTORS)
    _show_fitting(columns, table.rows, [STYLES.get(row.verdict) for row in table.rows], out)
    out.print(f"\n{table.measure} against {table.baseline}; a difference of "
              f"{number(table.effect)} would matter")  # fmt: skip
    for line in table.standing:
        out.print(line)
    for line in noise(table) + (outlook.lines(table.forecast) if table.forecast else []):
        out.print(line)
    say_warnings({row.name: row.cell["warnings"] for row in table.rows}, out)
    for name, why in gone(table):
        out.print(f"{name}: {why}", style="yellow")
    for file in files:
        out.print(f"  {file}")


def _show_fitting(
    columns: Mapping[str, Callable[[Any], str]],
    rows: Sequence[Any],
    styles: Sequence[str | None],
    out: Console,
) -> None:
    """A table of as many columns as there is room for, and which are left out."""
    from strawberry.cli.console import fitting, show, table as new_table

    texts = {head: [make(row) for row in rows] for head, make in columns.items()}
    kept, left = fitting(texts, SPARE, out.width)
    grid = new_table(*kept)
    for number, style in enumerate(styles):
        grid.add_row(*(texts[head][number] for head in kept), style=style)
    out.print()
    show(grid, out)
    if left:
        out.print(f"(no room for {', '.join(left)}: report.md has them)", style="dim")
