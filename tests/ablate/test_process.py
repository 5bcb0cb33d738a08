"""Worker processes of trials: what an exit code says."""

import signal
from pathlib import Path

import pytest

from strawberry.ablate.process import outcome


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (signal.SIGKILL, "killed by SIGKILL (out of memory?)"),
        (signal.SIGTERM, "killed by SIGTERM"),
        (signal.SIGRTMIN + 3, f"killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_every_signal_is_named(code: int, text: str, tmp_path: Path) -> None:
    """By its name, or by its number where it has none, as most real-time signals."""
    assert outcome(tmp_path, -code) == {"status": "killed", "error": text}
