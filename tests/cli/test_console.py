"""What a model made is shown without a danger to the terminal."""

import sys

import pytest

from strawberry.cli.console import console, fitting, say, say_warnings


@pytest.mark.parametrize(
    ("terminal", "shown"), [(True, "a\ufffd[2J\tb\n"), (False, "a\x1b[2J\tb\n")]
)
def test_control_characters_stay_off_a_terminal(
    terminal: bool, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An escape sequence reaches a file as it is, and a terminal as a replacement character."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    say("a\x1b[2J\tb\n")
    assert capsys.readouterr().out == shown


def test_a_narrow_terminal_goes_without_columns() -> None:
    """Those that may be left out are, in their order, until the rest fits."""
    columns = {"cell": ["a" * 20], "mean": ["1.0"], "cache": ["x" * 10], "verdict": ["worse"]}
    assert fitting(columns, ("cache", "mean"), 80) == (list(columns), [])
    assert fitting(columns, ("cache", "mean"), 40) == (["cell", "mean", "verdict"], ["cache"])
    assert fitting(columns, ("cache", "mean"), 10) == (["cell", "verdict"], ["cache", "mean"])


def test_a_warning_of_several_cells_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Cells with the same warning are named together, and only a few of many."""
    many = {f"c{n}": ["slow"] for n in range(6)}
    say_warnings({"a": ["slow", "large"], "b": ["slow"]}, console())
    say_warnings({**many, "d": []}, console())
    assert capsys.readouterr().out.splitlines() == [
        "warning: every cell: slow",
        "warning: a: large",
        "warning: c0, c1, c2, c3 and 2 more: slow",
    ]
