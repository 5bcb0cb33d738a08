"""`strawberry components`: the lists, and one component in full."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from strawberry.cli.app import run
from tests.plugin.fakes import FakeSite

MINE = '''
from typing import Annotated, Literal
from strawberry.plugin import Kind, hookimpl

class Mine:
    """A mixer [of mine].

    It explains itself.

    Args:
        n_head: heads [each].
        act: which.
        inner: what is inside.
    """

    def __init__(self, site, *, n_head: int, act: Literal["a", "b"] = "b",
                 inner: Annotated[object, Kind("ffn")] | None = None): ...

class Bare:
    """Nothing to set."""

@hookimpl
def strawberry_register(registry):
    registry.router("mine", Mine)
    registry.router("bare", Bare)
    registry.norm("mine2", Mine)
    registry.task("mine2", Mine)
'''


@pytest.fixture
def mine(site: FakeSite, tmp_path: Path) -> list[str]:
    """The option that loads a local plugin."""
    file = tmp_path / "idea.py"
    file.write_text(MINE, encoding="utf-8")
    return [f"--plugin={file}"]


def test_list(mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """All kinds are listed, each once, with what each component is and whose."""
    assert run([*mine, "components"]) == 0

    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if " mine " in line]
    assert row.split(None, 1)[1].startswith("A mixer [of mine].")
    assert row.endswith(" idea")
    assert out.count("\nffn ") == 1
    assert [line for line in out.splitlines() if line != line.rstrip()] == []


def test_list_of_a_kind(mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A kind narrows the list."""
    assert run([*mine, "components", "router"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"mine +A mixer \[of mine\]. +idea", out)
    assert "rmsnorm" not in out


def test_list_as_json(mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The list as data."""
    assert run([*mine, "components", "router", "--json"]) == 0

    listed = {one["full_name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["idea/bare"]["name"] == "bare"
    assert listed["idea/mine"]["summary"] == "A mixer [of mine]."
    assert [field["name"] for field in listed["idea/mine"]["fields"]] == ["n_head", "act", "inner"]
    assert listed["strawberry/token_choice"]["capabilities"]["batch_independent"] is True
    assert listed["strawberry/expert_choice"]["capabilities"]["exact"] is True


def test_a_broken_component_is_listed_with_its_error(
    site: FakeSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The JSON list says what is wrong with it, and has the others in full."""
    file = tmp_path / "idea.py"
    file.write_text(MINE.replace("Bare)", "'no_such_module:Bare')"), encoding="utf-8")
    assert run([f"--plugin={file}", "components", "router", "--json"]) == 0

    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "no_such_module" in listed["bare"]["error"]
    assert listed["mine"]["error"] is None
    assert listed["mine"]["fields"]


@pytest.mark.parametrize("words", [["router", "mine"], ["router", "idea/mine"], ["mine"]])
def test_one(mine: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One component has its place in the source and its fields, with types, defaults, texts."""
    assert run([*mine, "components", *words]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mine  router of plugin idea"
    assert lines[1].endswith("idea.py:5")
    assert "It explains itself." in lines
    rows = [line.split(None, 1) for line in lines[-3:]]
    assert rows[0] == ["n_head", "int                   required  heads [each]."]
    assert rows[1] == ["act", '"a" | "b"             "b"       which.']
    assert rows[2] == ["inner", "ffn component | None  null      what is inside."]


def test_one_as_json(mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One component as data."""
    assert run([*mine, "components", "mine", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["line"] == 5
    assert found["description"] == "A mixer [of mine].\n\nIt explains itself."
    assert found["fields"][0] == {
        "name": "n_head", "type": "int", "required": True, "default": None, "component": None,
        "doc": "heads [each].",
    }  # fmt: skip
    assert found["fields"][2]["component"] == "ffn"


def test_one_without_fields(mine: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A component without fields says so."""
    assert run([*mine, "components", "bare"]) == 0
    assert "It has no fields." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["norn"], "unknown kind or component 'norn'; did you mean 'norm'?"),
        (["qqqq"], "unknown kind or component 'qqqq'; kinds: attention, "),
        (["norm", "rmsnrm"], "unknown norm 'rmsnrm'; did you mean 'rmsnorm'?"),
        (["mine2"], "'mine2' exists in several kinds; write norm or task before it"),
    ],
)
def test_unknown(
    mine: list[str], words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that means nothing is one line with the nearest that does."""
    assert run([*mine, "components", *words]) == 2
    assert expected in capsys.readouterr().err


def test_empty_toolkit(site: FakeSite, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the built-in plugin there is nothing to list, and that is an answer."""
    assert run(["components", "--no-plugin", "strawberry"]) == 0
    assert capsys.readouterr().out == "no component is registered\n"


def test_component_that_does_not_import(
    site: FakeSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A component whose module is broken is an error that names it, without a traceback."""
    file = tmp_path / "idea.py"
    file.write_text(MINE.replace("Bare)", "'no_such_module:Bare')"), encoding="utf-8")

    assert run([f"--plugin={file}", "components", "bare"]) == 2
    assert capsys.readouterr().err == (
        "error: plugin 'idea': router 'bare' (no_such_module:Bare): "
        "ModuleNotFoundError: No module named 'no_such_module'\n"
    )
