"""What a model made is shown without a danger to the terminal."""

import sys

import pytest

from strawberry.cli.console import fitting, say


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
