"""Output that nobody reads does not end a command, and the end of a terminal saves a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from strawberry.runs import checkpoint
from tests.cli.runs import *  # noqa: F403 (fixtures)

MAIN = "from strawberry.cli import main; main()"
Recipe = Callable[..., Path]
LONG = {"max_iters": 1_000_000, "eval_interval": 0, "log_interval": 1}
SHORT = {"max_iters": 30, "eval_interval": 5, "log_interval": 1}


def begin(*words: str | Path, **how: object) -> subprocess.Popen[bytes]:
    """A command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    return subprocess.Popen(command, env=environment, **how)  # type: ignore[call-overload, no-any-return]


def steps(run: Path) -> int:
    """The step of a run's newest whole checkpoint."""
    found, damaged = checkpoint.load_newest(run / "checkpoints")
    assert not damaged
    return int(found.state["step"])


def until_logged(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for a run's first steps."""
    deadline = time.monotonic() + 60
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_outlives_the_readers_of_its_output(recipe_file: Recipe, tmp_path: Path) -> None:
    """As in `strawberry train ... 2>&1 | head -1`: it goes on to its end, and ends well."""
    process = begin(
        "train", recipe_file(train=SHORT), "--run-dir", tmp_path / "run",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert steps(tmp_path / "run") == 30


@pytest.mark.slow
def test_a_run_needs_no_streams_at_all(recipe_file: Recipe, tmp_path: Path) -> None:
    """As in `strawberry train ... >&- 2>&-`: what is written is not written into its own files."""
    command = begin(
        "train", recipe_file(train=SHORT), "--run-dir", tmp_path / "run",
        preexec_fn=lambda: [os.close(descriptor) for descriptor in (0, 1, 2)],
    )  # fmt: skip
    assert command.wait(60) == 0
    assert steps(tmp_path / "run") == 30
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert line.startswith("{")


def in_terminal(run: Path, recipe: Path, *, ignoring: bool) -> tuple[int, int]:
    """Train in a terminal of its own that is gone after the first steps: exit code, last step."""
    primary, secondary = os.openpty()

    def become() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(secondary), os.O_RDWR))  # the first one becomes its terminal
        if ignoring:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = begin(
        "train", recipe, "--run-dir", run,
        stdin=secondary, stdout=secondary, stderr=secondary, preexec_fn=become,
    )  # fmt: skip
    os.close(secondary)
    until_logged(run, process)
    os.close(primary)
    return process.wait(60), steps(run)


def test_a_terminal_that_is_gone_saves(recipe_file: Recipe, tmp_path: Path) -> None:
    """A lost ssh session ends a run with SIGHUP's code and a checkpoint."""
    code, step = in_terminal(tmp_path / "run", recipe_file(train=LONG), ignoring=False)
    assert code == 128 + signal.SIGHUP
    assert step >= 3


@pytest.mark.slow
def test_nohup_goes_on(recipe_file: Recipe, tmp_path: Path) -> None:
    """Where SIGHUP is ignored the run stays, and its terminal's errors do nothing."""
    slow = {"max_iters": 400, "eval_interval": 0, "log_interval": 1}
    code, step = in_terminal(tmp_path / "run", recipe_file(train=slow), ignoring=True)
    assert (code, step) == (0, 400)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """What a command was asked for can't be lost in silence."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with full.open("wb") as file:
        process = begin("--no-plugin", "all", "schema", stdout=file, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == b"error: standard output: No space left on device\n"
