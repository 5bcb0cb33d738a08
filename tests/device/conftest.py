"""What the lives of this run came to, printed at its end: how many there were, and their waits."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console
from rich.table import Table

BEFORE: Final[dict[str, list[float | None]]] = json.loads(
    Path(__file__).with_name("before.json").read_text()
)
"""How often the host waited in a step and for a token at commit 80deb42, by the tests' names."""
SHOWN: Final = 4
"""Names that a line of the table has at most."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table of the lives that passed."""
    reports = terminalreporter.getreports("passed")
    lives = [life for r in reports for key, life in r.user_properties if key == "life"]
    if lives:
        terminalreporter.section("pretend accelerator")
        terminalreporter.write_line(counted([life["name"] for life in lives]))
        console = Console(width=100, no_color=True)
        with console.capture() as captured:
            console.print(table(lives))
        for line in captured.get().splitlines():
            terminalreporter.write_line(line.rstrip())


def counted(names: Iterable[str]) -> str:
    """How many of each there were; a component may have been there in several forms."""
    recipes = {name for name in names if name.endswith((".yaml", ".json"))}
    optimizers = {name for name in names if name.startswith("optimizer/")}
    forms = set(names) - recipes - optimizers
    components = {name.partition(":")[0] for name in forms}
    return (
        f"{len(recipes)} recipes, {len(components)} components in {len(forms)} forms, "
        f"{len(optimizers)} optimizers: losses, metrics and ids are the CPU's to the bit"
    )


def table(lives: Iterable[Mapping[str, Any]]) -> Table:
    """A line for all with the same waits and reason, those that waited most first."""
    same: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for life in lives:
        before = BEFORE.get(life["name"], [None, None])
        now = (life["step"], life["token"])
        same[*zip(before, now, strict=True), life["reason"]].append(life["name"])
    made = Table("the host waits", "in a step", "for a token", "because", box=None, padding=(0, 2))
    for step, token, reason in sorted(
        same, key=lambda row: [-(n or 0) for n in (*row[0], *row[1])]
    ):
        names = sorted(same[step, token, reason])
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        made.add_row(", ".join(names[:SHOWN]) + more, _change(*step), _change(*token), reason)
    return made


def _change(before: float | None, now: float | None) -> str:
    """From a number before to that of today; empty where nothing was asked for."""
    return "" if now is None else f"{'?' if before is None else f'{before:g}'} -> {now:g}"
