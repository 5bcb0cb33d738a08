"""The referee accuses no component that comes along, whatever its fields.

`pytest -n2 -m slow tests/referee/test_honest.py` goes through every component with each value of
each enumerated field, and ten more settings drawn at random; each component's row of HONEST.md is
written anew.
"""

import tempfile
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, Phase, given, settings

from strawberry.check import of_component
from strawberry.check.run import checks_for
from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.plugin import Plugins
from strawberry.plugin.registry import RegistryEntry
from strawberry.plugin.signature import fields_of
from strawberry.referee import audit
from tests.components.test_random_recipes import fields

PLUGINS = Plugins.load()
ROWS = PLUGINS.registry.kinds
KINDS = [row.name for row in ROWS if "future" in checks_for(row.name, ROWS)]
ENTRIES = [entry for kind in KINDS for entry in PLUGINS.registry.entries(kind)]
LENGTHS = (29, 96)
DRAWS = 10
TABLE = Path(__file__).with_name("HONEST.md")


def accused(
    entry: RegistryEntry, given_fields: dict[str, Any], *, compiled: bool
) -> list[str] | None:
    """What the referee says of undeclared dependence; None where the fields can't be built."""
    try:
        model = build(of_component(entry.kind, entry.full_name, given_fields).recipe)
    except StrawberryError:
        return None
    limit = model.limit()
    lengths = [length for length in LENGTHS if limit is None or length <= limit]
    seen = audit(model, lengths, compiled=compiled)
    return [f"{given_fields}: {m.breach}" for m in seen if m.breach and not m.declared]


def enumerated(entry: RegistryEntry) -> Iterator[dict[str, Any]]:
    """Each value of each field that has a list of them, by itself."""
    for field in fields_of(entry.load()):
        annotation = field.annotation
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        if annotation is bool:
            yield from ({field.name: value} for value in (True, False))
        elif typing.get_origin(annotation) is typing.Literal:
            yield from ({field.name: value} for value in typing.get_args(annotation))


def write(row: str) -> None:
    """Put the row of a component into the table, in place of the one that is there."""
    with FileLock(Path(tempfile.gettempdir(), "honest.lock")):
        lines = TABLE.read_text().splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith("| ---")) + 1
        name = row.split(" | ", maxsplit=1)[0]
        rows = [line for line in lines[first:] if not line.startswith(f"{name} | ")]
        TABLE.write_text("\n".join([*lines[:first], *sorted([*rows, row])]) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}/{entry.full_name}")
def test_no_setting_is_accused(entry: RegistryEntry) -> None:
    """Each enumerated value by itself, and ten draws of all fields, show no breach.

    The component as it comes is compiled too; the others aren't, for that takes most of the time.
    """
    tried, refused, accusations, began = 0, 0, list[str](), time.process_time()

    def look(given_fields: dict[str, Any], compiled: bool = False) -> None:
        nonlocal tried, refused
        seen = accused(entry, given_fields, compiled=compiled)
        tried, refused = tried + (seen is not None), refused + (seen is None)
        accusations.extend(seen or [])

    def draw(given_fields: dict[str, Any]) -> None:
        look(given_fields)

    look({}, compiled=True)
    for given_fields in enumerated(entry):
        look(given_fields)
    settings(
        max_examples=DRAWS,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(given(fields(entry.load()))(draw))()
    seconds = time.process_time() - began
    cells = (f"{entry.kind}/{entry.full_name}", tried, refused, len(accusations), f"{seconds:.0f}")
    write(f"| {' | '.join(map(str, cells))} |")
    assert accusations == []
