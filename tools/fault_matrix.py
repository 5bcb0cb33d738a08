"""The fault matrix: runs the tests that are marked with its rows, and prints a line for each fault.

python tools/fault_matrix.py             # the quick proofs
python tools/fault_matrix.py --slow      # the long ones too: kills, random files; forty minutes
python tools/fault_matrix.py --row 13 --row 26
python tools/fault_matrix.py --slow --markdown tools/FAULTS.md

A row holds if all of its proofs pass. Its control is a test in which the detector is switched off,
and which passes if the fault then goes unnoticed: without it a proof might prove nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]

ROWS = {
    1: "stop and resume, at every step, for every optimizer, generator and recipe",
    2: "kill -9 at random moments, resumed until done",
    3: "kill -9 at each call within a save",
    4: "SIGTERM in build, data, warm-up, evaluation and save",
    5: "Ctrl-C once, and twice",
    6: "SIGTERM to one rank of several",
    7: "kill -9 of one rank",
    8: "a part of the state that is missing",
    9: "another number of ranks",
    10: "another data set on resume",
    11: "another recipe, plugin, torch or machine on resume; forks",
    12: "a checkpoint of another format",
    13: "a bit flipped in any 64 bytes of any file",
    14: "files cut, emptied, gone, exchanged; stray ones",
    15: "a disk that fills up",
    16: "a disk with too little room from the start",
    17: "a folder that can't be written",
    18: "EIO and EINTR, once and for good",
    19: "an old checkpoint that can't be removed",
    20: "two processes, one folder",
    21: "kill -9 of who holds the lock",
    22: "names and manifests that lead out of the folder",
    23: "a clock that jumps",
    24: "what killed writers leave",
    25: "kill -9 of who writes results",
    26: "NaN and infinities in loss, gradient, input, weight, moments",
    27: "a loss spike",
    28: "a data set that raises, or gives ids out of range",
    29: "token and text files that are damaged",
    30: "out of memory",
    31: "a model that no machine holds",
    32: "random recipes",
    33: "bombs: aliases, merges, depth, digits, size",
    34: "code in recipes",
    35: "scalars that mislead",
    36: "pickles and archives from strangers",
    37: "safetensors that lie",
    38: "plugins that can't be imported, hang or crash",
    39: "a plugin that raises within a run",
    40: "network, and writes outside of the run",
    41: "trials that raise, exit, crash, are killed, hang, diverge, run out of memory or disk",
    42: "kill -9 of a sweep",
    43: "a worker's machine that is lost",
    44: "a trial that is held twice",
    45: "a trial that always fails",
    46: "a sweep's folder that another process holds, or that is gone",
}


COLUMNS = ("", "fault", "survived", "lost", "controls", "s", "figures")
LEFT = ("fault", "figures")

HEAD = """# Faults that are survived

Written by `{command}`. A fault is injected by tests that are marked with its row: "survived" is how
many of them passed of how many ran, controls are tests in which its detector is off, and which pass
if it then goes unnoticed. Figures are what the tests themselves count.

"""


@dataclass(slots=True)
class Row:
    """The outcomes of a row's tests."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    controls: int = 0
    seconds: float = 0.0
    figures: list[str] = field(default_factory=list)


class Outcomes:
    """A pytest plugin that notes the outcome of each marked test under its rows."""

    def __init__(self, rows: set[int]) -> None:
        self.wanted = rows
        self.rows: dict[int, Row] = defaultdict(Row)
        self._marks: dict[str, list[pytest.Mark]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests of the rows that are wanted."""
        kept = []
        for item in items:
            marks = [*item.iter_markers("faults")]
            if any(self.wanted & set(mark.args) for mark in marks):
                self._marks[item.nodeid] = marks
                kept.append(item)
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test; what fails before its body has failed too."""
        if report.when != "call" and report.outcome == "passed":
            return
        for mark in self._marks[report.nodeid]:
            for number in mark.args:
                row = self.rows[number]
                row.seconds += report.duration
                if report.outcome == "failed":
                    row.failed.append(report.nodeid)
                elif report.outcome == "passed" and mark.kwargs.get("control"):
                    row.controls += 1
                elif report.outcome == "passed":
                    row.passed += 1
                    row.figures += [str(v) for k, v in report.user_properties if k == "figure"]


def main() -> int:
    """Run the suite and print the table; exit code 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--slow", action="store_true", help="the long proofs too")
    parser.add_argument("--row", type=int, action="append", choices=ROWS, metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    chosen = parser.parse_args()
    outcomes = Outcomes(set(chosen.row or ROWS))
    marks = "faults" if chosen.slow else "faults and not slow"
    arguments = [
        *(str(ROOT / top) for top in ("tests", "plugins")), "-q", "--no-header", "-m", marks,
        "-n", "0", "-p", "no:cacheprovider", f"--rootdir={ROOT}",
    ]  # fmt: skip
    code = pytest.main(arguments, plugins=[outcomes])
    lines = [line(number, outcomes.rows[number]) for number in sorted(outcomes.wanted)]
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        made.add_column(column, justify="left" if column in LEFT else "right")
    for cells in lines:
        made.add_row(*cells, style="red" if cells[3] not in ("", "0") else None)
    Console().print(made)
    if chosen.markdown is not None:
        chosen.markdown.write_text(page(lines))
    return int(code)


def line(number: int, row: Row) -> tuple[str, ...]:
    """The cells of a fault: what was tried, survived and lost."""
    tried = row.passed + len(row.failed)
    if not tried:
        return (str(number), ROWS[number], "-", "", "", "", "slow: not run")
    return (
        str(number), ROWS[number], f"{row.passed}/{tried}", str(len(row.failed)),
        str(row.controls or "-"), f"{row.seconds:.1f}", "; ".join(row.figures),
    )  # fmt: skip


def page(lines: Sequence[tuple[str, ...]]) -> str:
    """The table in Markdown, under what it is."""
    ruled = [":--" if column in LEFT else "--:" for column in COLUMNS]
    rows = ["| " + " | ".join(cells) + " |" for cells in [COLUMNS, ruled, *lines]]
    return HEAD.format(command=" ".join(["python", *sys.argv])) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
