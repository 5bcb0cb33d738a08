"""The progress display, on a terminal."""

from __future__ import annotations

import io

import pytest

from strawberry.cli import progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_a_terminal_gets_a_bar_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage has a bar; all are full at the end, also one whose size was never known."""
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.shown() as show:
        show("reading", 0, 1000)
        show("reading", 1000, 1000)
        show("merging [x]", 1000, None)
        show("encoding", 500, 1000)
    last = [line for line in terminal.getvalue().splitlines() if "0:00:0" in line][-3:]
    for stage, line in zip(("reading", "merging [x]", "encoding"), last, strict=True):
        assert stage in line
        assert "1.0/1.0 kB" in line
