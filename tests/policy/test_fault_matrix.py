"""Every row of the fault matrix is proved, and the proof can fail."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import fault_matrix  # noqa: E402 (it is a script, not a package's module)

UNCONTROLLED = {43, 44, 45}
"""Rows of what is told or done again, which have no detector that could be switched off."""


def marked(control: bool) -> set[int]:
    """The rows that some test is marked with, as a proof or as a control."""
    rows: set[int] = set()
    for path in (file for top in ("tests", "plugins") for file in (ROOT / top).rglob("test_*.py")):
        for numbers, is_control in re.findall(
            r"@pytest\.mark\.faults\(([\d, ]+?)(, control=True)?\)", path.read_text()
        ):
            if bool(is_control) == control:
                rows |= {int(number) for number in numbers.split(",")}
    return rows


def test_every_row_has_a_proof() -> None:
    """And every proof has a row."""
    assert marked(control=False) == fault_matrix.ROWS.keys()


def test_every_proof_has_a_control() -> None:
    """A detector that is switched off, with which the fault goes unnoticed."""
    wanted = marked(control=False) - UNCONTROLLED
    assert wanted - marked(control=True) == set()
