import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from strawberry.runs import checkpoint
from strawberry.runs.folder import RunFolder
from strawberry.training.signals import stop_signals

MAIN = "from strawberry.cli import main; main()"


def start(recipe: Path, run: Path) -> subprocess.Popen[str]:
    """A training process that takes its time, once it has logged its first steps."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "train", str(recipe), "--run-dir", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"no steps: {process.communicate()}")
        time.sleep(0.02)
    return process


@pytest.mark.faults(4, 5)
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)],
)
def test_a_signal_saves_and_says_how_to_go_on(
    recipe_file: Callable[..., Path], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The process ends with the signal's code, a whole checkpoint and the command to go on."""
    recipe = recipe_file(train={"max_iters": 1_000_000, "eval_interval": 0})
    process = start(recipe, tmp_path / "run")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert f"strawberry train {recipe} --run-dir {tmp_path / 'run'} --resume" in errors
    assert "Traceback" not in errors
    found, damaged = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    assert found.state["step"] >= 3
    assert damaged == []


@pytest.mark.faults(21)
def test_the_folder_of_a_killed_process_is_free_at_once(
    recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    """After kill -9 the lock does not stand in the way, and the run can be gone on with."""
    recipe = recipe_file(
        train={"max_iters": 1_000_000, "eval_interval": 0, "checkpoint_interval": 1}
    )
    process = start(recipe, tmp_path / "run")
    process.kill()
    process.communicate()
    began = time.monotonic()
    run = RunFolder(tmp_path / "run")
    run.hold()
    run.release()
    assert time.monotonic() - began < 1
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].state["step"] >= 1


@pytest.mark.faults(5)
def test_the_second_signal_is_not_caught() -> None:
    """The first one asks; the second does what it does without us: here, KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop:  # noqa: PT012 (in order)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stop.asked == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_that_come_twice_do_not_insist() -> None:
    """A hang-up comes from terminal and shell, and SIGTERM after it or a warning is the first."""
    with stop_signals() as stop:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        assert stop.asked == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ignored_signals_stay_ignored() -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.asked == 0
    finally:
        signal.signal(signal.SIGHUP, before)
