"""plugins/COMPONENTS.md says what the components say of themselves."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import component_reference  # noqa: E402 (it is a script, not a package's module)


def test_the_reference_is_current() -> None:
    """If not: `python tools/component_reference.py`, and commit what it writes."""
    assert component_reference.reference() == component_reference.FILE.read_text()


def test_fields_are_described_as_recipes_write_them() -> None:
    """A recipe's author writes null, so no field's description says None."""
    rows = [line for line in component_reference.reference().splitlines() if line.startswith("|")]
    said = [line for line in rows if re.search(r"\bNone\b", re.sub(r"`[^`]*`", "", line))]
    assert len(rows) > 300
    assert said == []
