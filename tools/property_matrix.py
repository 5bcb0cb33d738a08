"""The property suite's outcome as a table: a row for each component, a column for each property.

python tools/property_matrix.py             # all but the compile tests
python tools/property_matrix.py --compile   # those too; some minutes
python tools/property_matrix.py -k aft      # what pytest's -k selects
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

SUITE = Path(__file__).parents[1] / "tests" / "components" / "test_properties.py"
KINDS = ("attention", "ffn", "norm", "positional", "router", "weights", "model")
RANK = {"passed": 0, "skipped": 1, "failed": 2}
SIGNS = {"passed": "[green]ok[/]", "skipped": "[yellow]-[/]", "failed": "[red]FAILED[/]"}


class Outcomes:
    """A pytest plugin that notes the worst outcome of each component and property."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str], str] = {}
        self.reasons: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test; what fails before its body has failed too."""
        if report.when != "call" and report.outcome == "passed":
            return
        found = re.search(rf"::test_(\w+)\[.*?((?:{'|'.join(KINDS)})/[\w:]*)", report.nodeid)
        if found is None:
            return
        component = found[2]
        cell = component, found[1]
        if RANK[report.outcome] >= RANK[self.cells.get(cell, "passed")]:
            self.cells[cell] = report.outcome
        if report.outcome == "skipped":
            reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
            self.reasons[reason.removeprefix("Skipped: ")].add(f"{component}: {found[1]}")


def main() -> int:
    """Run the suite and print the table; exit code 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--compile", action="store_true", help="the compile tests too")
    parser.add_argument("-k", default="", help="what pytest's -k selects")
    chosen = parser.parse_args()
    outcomes = Outcomes()
    marks = "slow or not slow" if chosen.compile else "not slow"
    arguments = [str(SUITE), "-q", "--no-header", "-m", marks, "-p", "no:cacheprovider", "-n", "0"]
    code = pytest.main([*arguments, "-k", chosen.k], plugins=[outcomes])

    properties = list(dict.fromkeys(name for _, name in outcomes.cells))
    table = Table(title="what each component was seen to hold", box=box.SIMPLE)
    table.add_column("component", no_wrap=True)
    for name in properties:
        table.add_column(name.replace("_", " "), justify="center", max_width=12)
    for component in sorted(dict.fromkeys(name for name, _ in outcomes.cells)):
        cells = [outcomes.cells.get((component, name)) for name in properties]
        table.add_row(component, *(SIGNS[c] if c else "" for c in cells))
    console = Console(width=max(Console().width, 200))
    console.print(table)
    for reason, where in outcomes.reasons.items():
        console.print(f"- {reason}: {', '.join(sorted(where))}", highlight=False)
    worst = [cell for cell, outcome in outcomes.cells.items() if outcome == "failed"]
    console.print(f"{len(outcomes.cells)} cells, {len(worst)} failed")
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
