"""The display of a run in logs: few lines, and none that are redrawn."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from strawberry.cli.console import animates
from strawberry.cli.display import LINES, RunDisplay

ROW = {"loss": 3.0, "lr": 1e-3, "tokens_per_second": 1.0, "grad_norm": 1.0}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def shown(steps: int, *, quiet: bool = False) -> list[str]:
    """The lines of a run that logs every step, and evaluates twice."""
    file = io.StringIO()
    display = RunDisplay(Console(file=file, width=80), quiet=quiet)
    display.last = steps
    display.preparing("encoding", 0, None)
    for step in range(1, steps + 1):
        display.step_done(Path("run"), step, ROW)
        if step in (steps // 2, steps):
            display.evaluated(Path("run"), step, {"val_loss": 2.0})
    return file.getvalue().splitlines()


@pytest.mark.parametrize("steps", [3, 39, 1_000, 20_000])
def test_a_log_is_not_flooded(steps: int) -> None:
    """Few steps all have a line; many have about forty, the first and the last among them."""
    lines = [line for line in shown(steps) if "ETA" in line]
    assert lines[0].startswith("step 1/")
    assert lines[-1].startswith(f"step {steps}/{steps}")
    assert min(steps, LINES) <= len(lines) <= LINES + 2


def test_quiet_shows_the_result() -> None:
    """The last evaluation, and nothing before."""
    assert shown(100, quiet=True) == ["step 100  validation loss 2.0000"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, True), ({"CI": "true"}, False), ({"CI": "false"}, True), ({"TERM": "dumb"}, False)],
)
def test_who_is_redrawn_for(
    variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal with a person before it; never a pipe, whatever colours it is to have."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert animates(Terminal()) is expected
    assert not animates(io.StringIO())
