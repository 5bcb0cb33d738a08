"""Worker processes of trials: what an exit code says."""

import signal
from pathlib import Path

import pytest

from strawberry.ablate.process import outcome
from strawberry.components.executor.local import own_cores


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


@pytest.mark.parametrize(
    ("slots", "threads", "cores", "own"),
    [(2, 1, [0, 1], [[0], [1]]), (1, 2, [2, 3], [[2, 3]]), (1, 1, [0, 1], [[]]), (3, 1, [0], [[]])],
)
def test_trials_are_bound_to_cores_only_where_they_take_all(
    slots: int, threads: int, cores: list[int], own: list[list[int]]
) -> None:
    """A sweep of one job leaves the choice to the system: another may have the first core."""
    for slot, expected in enumerate(own):
        assert own_cores(slot, slots, threads, cores) == expected
