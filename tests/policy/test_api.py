"""The public API, name by name with its types, is what a stored list says.

After a change that is meant: `UPDATE_API=1 python -m pytest -n0 tests/policy/test_api.py`, and look
at the difference of public_api.txt. A line that is gone or changed can break a plugin:
plugins/README.md, "Versions", says what that means for `API_VERSION`.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import importlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strawberry.plugin.public import PUBLIC
from tests.policy.test_public import names_of

STORED = Path(__file__).with_name("public_api.txt")


def api() -> str:
    """Every public name of every public module, each on a line, members below their class."""
    lines: list[str] = []
    for module in PUBLIC:
        lines.append(module)
        home = importlib.import_module(module)
        for name in sorted(names_of(module)):
            lines += [f"  {line}" for line in described(name, getattr(home, name))]
    return "\n".join(lines) + "\n"


def described(name: str, value: Any) -> Iterator[str]:
    """A name's lines: a function with its signature, a class with its members, else a type."""
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})"
        yield from (f"  {line}" for line in members(value))
    elif inspect.isroutine(value):
        yield f"{name}{signature(value)}"
    elif inspect.ismodule(value):
        yield f"module {name}"
    elif type(value).__module__ in ("typing", "types"):
        yield f"type {name}"
    else:
        yield f"{name}: {type(value).__name__}"


def members(cls: type) -> Iterator[str]:
    """What a class itself says in public: its constructor, methods, properties, attributes."""
    if issubclass(cls, enum.Enum):
        yield from (str(each.name) for each in cls)
        return
    if "__init__" in vars(cls) or dataclasses.is_dataclass(cls):
        yield f"__init__{signature(cls.__init__)}"  # type: ignore[misc]
    typed = vars(cls).get("__annotations__", {})
    for name in sorted({*vars(cls), *typed}):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(cls, name, None)
        if isinstance(value, property):
            yield f"{name}: property"
        elif isinstance(value, (staticmethod, classmethod)):
            yield f"{type(value).__name__} {name}{signature(value.__func__)}"
        elif inspect.isfunction(value):
            yield f"{name}{signature(value)}"
        elif name in typed:
            yield f"{name}: {typed[name]}"
        else:
            yield name


def signature(function: Any) -> str:
    """Its parameters and result as they are written; `(...)` if it has none that can be read."""
    try:
        whole = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    shown = [
        p.replace(default="...") if p.default is not p.empty else p
        for p in whole.parameters.values()
    ]
    return str(whole.replace(parameters=shown)).replace("'...'", "...").replace("'", "")


def test_the_api_is_as_stored() -> None:
    """A name or a type that changes is noticed here, and not by the authors of plugins."""
    now = api()
    if "UPDATE_API" in os.environ:
        STORED.write_text(now)
    changed = [
        line
        for line in difflib.unified_diff(
            STORED.read_text().splitlines(), now.splitlines(), "stored", "now", lineterm="", n=0
        )
        if not line.startswith("@@")
    ]
    if changed:
        pytest.fail("\n".join([*changed, "if meant: UPDATE_API=1, as the module's head says"]))


def test_a_change_is_seen() -> None:
    """A control: a parameter, a result, a method and an attribute all show."""

    class Before:
        width: int

        def run(self, x: int) -> None: ...

    class After:
        width: float

        def run(self, x: int, y: int = 1) -> int: ...

    assert list(described("C", Before)) == ["class C()", "  run(self, x: int) -> None",
                                            "  width: int"]  # fmt: skip
    assert list(described("C", After)) == ["class C()", "  run(self, x: int, y: int = ...) -> int",
                                           "  width: float"]  # fmt: skip
