import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from strawberry.generation import load_run
from strawberry.runs import checkpoint
from tests.faults.conftest import Figure, figure
from tests.training.parallel.ranks import (
    RECIPES,
    TIMEOUT,
    difference,
    finish,
    job,
    rows,
    run,
    sets,
    start,
)

__all__ = ["figure"]

LONG = {"train__max_iters": 40, "train__lr_decay_iters": 40, "train__eval_interval": 0}


def wait_for(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until a run has logged a step."""
    until = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < until:
        if (
            (folder / "metrics.jsonl").exists()
            and rows(folder)[-1:]
            and (rows(folder)[-1]["step"] >= step)
        ):
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} was never reached")


def command(folder: Path, *more: str, **changes: object) -> list[str]:
    """The command line of a run."""
    options = [word for value in sets(**{**LONG, **changes}) for word in ("--set", value)]
    recipe = str(RECIPES / "gpt2.yaml")
    return ["-m", "strawberry", "train", recipe, "--run-dir", str(folder), *more, *options]


@pytest.mark.slow
@pytest.mark.faults(6)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(
    tmp_path: Path, figure: Figure, number: signal.Signals, code: int
) -> None:
    """A signal to the second of two: both save, in shards, and exit with its code."""
    ranks = start(2, command(tmp_path / "run", train__max_iters=4000, train__parallel="fsdp"))
    try:
        wait_for(tmp_path / "run", 2, ranks[0])
        ranks[1].send_signal(number)
    finally:
        ended = finish(ranks)

    assert [found for found, _, _ in ended] == [code, code], ended
    saved, _ = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    assert saved.state["step"] == rows(tmp_path / "run")[-1]["step"]
    assert load_run(tmp_path / "run", device="cpu").step == saved.state["step"]
    figure(2, 2, "ranks at the same step", deadlocks=0)


ALONE = """
    from strawberry.plugin import hookimpl
    from strawberry.ranks.world import World

    World.most = lambda world, number: number

    @hookimpl
    def strawberry_register(registry):
        pass
"""
"""A plugin with which a rank answers for all without asking them."""


@pytest.mark.slow
@pytest.mark.faults(6, control=True)
def test_ranks_that_do_not_agree_are_lost_to_a_signal(tmp_path: Path) -> None:
    """Where each heeds its own signals alone, they neither stop together nor save."""
    (tmp_path / "alone.py").write_text(textwrap.dedent(ALONE))
    module, name, *rest = command(tmp_path / "run", train__max_iters=4000)
    ranks = start(2, [module, name, "--plugin", str(tmp_path / "alone.py"), *rest])
    try:
        wait_for(tmp_path / "run", 2, ranks[0])
        ranks[1].send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            ranks[1].wait(10)  # or it waits for the other, and the other for it
    finally:
        for rank in ranks:
            rank.kill()
        ended = finish(ranks)

    assert [code for code, _, _ in ended] != [143, 143]
    assert not any(checkpoint.newest(tmp_path / "run" / "checkpoints"))


def launched(arguments: list[str]) -> subprocess.Popen[str]:
    """`strawberry train --nproc`, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=RECIPES.parent,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher has started."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in text.split()]


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and errors; nothing that it started outlives this."""
    try:
        _, errors = process.communicate(timeout=TIMEOUT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.faults(7)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_rank_that_is_killed_is_named_and_its_run_resumed(
    tmp_path: Path, parallel: str, figure: Figure
) -> None:
    """Five kills at random steps: exit 1 and a line that says who; resumed, the same losses."""
    chance = random.Random(parallel)
    run(1, [job("gpt2", tmp_path / "1", **LONG)], tmp_path / "jobs")
    folder = tmp_path / "run"
    options = {"train__parallel": parallel, "train__checkpoint_interval": 3}
    for number in range(5):
        resume = ["--resume"] if number else []
        process = launched(command(folder, "--nproc", "2", *resume, **options))
        wait_for(folder, chance.randrange(7 * number + 2, 7 * number + 7), process)
        os.kill(chance.choice(workers(process)), signal.SIGKILL)
        code, errors = end(process)
        assert code == 1
        assert "was killed by SIGKILL" in errors
        assert "Traceback" not in errors
    code, errors = end(launched(command(folder, "--nproc", "2", "--resume", **options)))
    assert code == 0, errors
    found = difference(tmp_path / "1", folder)
    assert found < 2e-5
    figure(5, 5, f"kills resumed with {parallel}", within=f"{found:.1e}")


@pytest.mark.slow
@pytest.mark.faults(7)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_restarts_go_on_by_themselves(tmp_path: Path, parallel: str, figure: Figure) -> None:
    """Two kills under --max-restarts 2: one command, exit 0, the losses of an undisturbed run."""
    run(1, [job("gpt2", tmp_path / "1", **LONG)], tmp_path / "jobs")
    folder = tmp_path / "run"
    options = {"train__parallel": parallel, "train__checkpoint_interval": 3}
    process = launched(command(folder, "--nproc", "2", "--max-restarts", "2", **options))
    for step in (8, 25):
        wait_for(folder, step, process)
        os.kill(workers(process)[-1], signal.SIGKILL)
        time.sleep(2)  # the launcher has to see it
    code, errors = end(process)
    assert code == 0, errors
    assert difference(tmp_path / "1", folder) < 2e-5
    figure(2, 2, f"restarts with {parallel}")
