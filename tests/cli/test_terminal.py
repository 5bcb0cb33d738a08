"""Colours are for people at terminals."""

from __future__ import annotations

import io

import pytest

from strawberry.cli.terminal import BOLD, coloured, paint


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(
    ("variables", "stream", "expected"),
    [
        ({}, io.StringIO(), False),
        ({}, Terminal(), True),
        ({"TERM": "dumb"}, Terminal(), False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, Terminal(), False),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
    ],
)
def test_coloured(
    variables: dict[str, str],
    stream: io.StringIO,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Terminals get colours, pipes do not, and the usual variables decide otherwise."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert coloured(stream) is expected
    assert ("\x1b" in paint("x", BOLD, stream)) is expected
