"""Ablations on a Ray cluster of several nodes, which are processes of this machine."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strawberry.ablate import Plan, Record, Sweep, SweepObserver, make_executor, prepare, tabulate
from strawberry.contracts import FINISHED
from strawberry.plugin import Plugins
from tests.ablate.test_sweep import FFN, WAYS

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

PlanMaker = Callable[..., Plan]
STEPS = 40
"""Those of a trial."""
SMALL = {"node_ip_address": "127.0.0.2", "object_store_memory": 80 * 2**20}
"""Of a node; at 127.0.0.1 Ray would take the network's address, and listen there."""
HEALTH = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000,
          "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}  # fmt: skip
"""A node that does not answer for some six seconds is lost; a busy machine is slow to answer."""

pytestmark = [
    # Ray leaves files and sockets of its own to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Told(SweepObserver):
    """What was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """One more."""
        self.said.append(text)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster: a head without room, and a node for each of the given resources."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with contextlib.ExitStack() as stack:

        def make(*nodes: dict[str, int]) -> Cluster:
            head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH, **SMALL}
            cluster = Cluster(initialize_head=True, head_node_args=head)
            stack.callback(cluster.shutdown)
            for resources in nodes:
                cluster.add_node(wait=False, **{**SMALL, **resources})
            cluster.wait_for_nodes()
            return cluster

        yield make


THREE = ({"num_cpus": 1},) * 3


def run(
    plan: Plan, plugins: Plugins, out: Path, told: Told | None = None, **fields: Any
) -> tuple[Record, Told]:
    """The ablation, with this executor."""
    told = told or Told()
    executor = make_executor(fields, plugins)
    return Sweep(prepare(plan, plugins), executor, out, told).run(), told


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run it in a thread; the list holds what it returned."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return thread, found


def rows(record: Record) -> dict[str, list[dict[str, Any]]]:
    """The log of each trial, without the times."""
    return {
        trial.key: [
            {k: v for k, v in row.items() if k != "tokens_per_second"} for row in trial.rows()
        ]
        for trial in record.trials
    }


def steps_done(folder: Path) -> Counter[tuple[str, int]]:
    """How often each step of each trial was done, by whatever process."""
    lines = (folder / "steps.txt").read_text().splitlines()
    return Counter((line.split()[0], int(line.split()[1])) for line in lines)


def until(done: Callable[[], Any], seconds: float = 300) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def saved(out: Path, step: int) -> list[Path]:
    """The attempts, running now, that have a checkpoint of this step or a later one."""
    found = out.glob("trials/*.attempt-*/run/checkpoints/step-*")
    return sorted({path.parents[2] for path in found if int(path.name[5:]) >= step})


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])  # after the state
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def writers(out: Path) -> dict[int, Path]:
    """The processes that have a file below `out` open, each with the folder of its trial."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            file = path.readlink()
            if file.is_relative_to(out / "trials"):
                found[int(path.parts[2])] = (
                    out / "trials" / file.relative_to(out / "trials").parts[0]
                )
    return found


def contents(out: Path) -> dict[str, bytes]:
    """All files of the trials but what was printed."""
    files = [path for path in out.glob("trials/**/*") if path.is_file() and path.name != "log.txt"]
    return {str(path): path.read_bytes() for path in files}


def in_its_middle(node: Any, out: Path) -> dict[int, Path]:
    """The processes on a node that train, and have saved something."""
    here = {pid: folder for pid, folder in writers(out).items() if pid in family(raylet(node))}
    return {pid: folder for pid, folder in here.items() if folder in saved(out, 5)}


def raylet(node: Any) -> int:
    """The process that makes a node a node."""
    return node.all_processes["raylet"][0].process.pid


def check_same(record: Record, plan: Plan, plugins: Plugins, folder: Path) -> None:
    """Every trial finished, once, with the very log that the local executor gets."""
    assert all((trial.result() or {})["status"] == FINISHED for trial in record.trials)
    local, _ = run(plan, plugins, folder / "local", use="local", jobs=1)
    assert rows(record) == rows(local)
    folders = {path.name for path in (record.folder / "trials").iterdir()}
    assert folders == {trial.folder.name for trial in record.trials}


def test_a_cluster_of_this_machine(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without an address one is started; it ends with the ablation, and nothing was printed."""
    import ray

    plan = make_plan(seeds=1, vary={FFN: ("swiglu",)}, overrides=("train.max_iters=6",))
    record, told = run(plan, plugins, tmp_path / "out", use="ray", jobs=1)
    printed = capfd.readouterr()
    assert (printed.out, printed.err, told.said) == ("", "", [])
    assert [(trial.result() or {})["status"] for trial in record.trials] == [FINISHED]
    assert not ray.is_initialized()
    assert writers(tmp_path / "out") == {}


@pytest.mark.slow
def test_three_nodes_give_what_one_process_gives(
    start: Callable[..., Cluster], make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """To the bit, on all three of them; the same call again runs nothing."""
    cluster = start(*THREE)
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=3)
    record, told = run(plan, plugins, tmp_path / "out", use="ray", address=cluster.address)
    assert len(told.started) == len(record.trials) == 6
    assert max(steps_done(tmp_path).values()) == 1
    assert len({(trial.folder / "node").read_text() for trial in record.trials}) == 3
    _, again = run(plan, plugins, tmp_path / "out", use="ray", address=cluster.address)
    assert again.started == []
    check_same(record, plan, plugins, tmp_path)


@pytest.mark.slow
@pytest.mark.faults(43)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_node_dies_in_the_middle(
    at_once: bool,
    start: Callable[..., Cluster],
    make_plan: PlanMaker,
    plugins: Plugins,
    tmp_path: Path,
) -> None:
    """Its trial goes on elsewhere from its last checkpoint; every trial is there once.

    Either everything on it dies at once, or Ray's part alone, and the trial has time to save.
    """
    cluster = start(*THREE)
    node = next(iter(cluster.worker_nodes))
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=3)
    out = tmp_path / "out"
    begun = time.monotonic()
    thread, found = in_background(
        lambda: run(plan, plugins, out, use="ray", address=cluster.address)
    )
    until(lambda: in_its_middle(node, out))
    if at_once:
        everything = family(raylet(node))
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none sees another die
            for pid in everything:
                os.kill(pid, number)
    cluster.remove_node(node, allow_graceful=False)
    thread.join()
    seconds = time.monotonic() - begun
    record, told = found[0]
    done = steps_done(tmp_path)
    redone = sum(done.values()) - len(done)
    spent = sum((trial.result() or {})["spent"] for trial in record.trials)
    print(f"{len(record.trials)} trials, {len(told.said)} retried, {redone} steps redone of "  # noqa: T201
          f"{len(done)}; {seconds:.1f} s, {spent:.1f} s in trials")  # fmt: skip
    assert len(told.started) == len(set(told.started)) == 6
    assert len(told.said) == 1
    assert told.said[0].endswith("it continues elsewhere")
    assert len(done) == 6 * STEPS
    assert redone <= 5  # a checkpoint's interval
    check_same(record, plan, plugins, tmp_path)


@pytest.mark.slow
@pytest.mark.faults(44)
def test_a_node_that_was_thought_dead_comes_back(
    start: Callable[..., Cluster], make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """All of it freezes in the middle of a trial, which goes on elsewhere; then it is refused."""
    cluster = start({"num_cpus": 1}, {"num_cpus": 1})
    node = next(iter(cluster.worker_nodes))
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=1)
    out, told = tmp_path / "out", Told()
    thread, found = in_background(
        lambda: run(plan, plugins, out, told, use="ray", address=cluster.address)
    )
    until(lambda: in_its_middle(node, out))
    frozen = family(raylet(node))
    late = in_its_middle(node, out)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: told.said)
        thread.join()
        done, before = steps_done(tmp_path), contents(out)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    until(lambda: not late.keys() & writers(out).keys())
    record, _ = found[0]
    assert late
    assert told.said[0].endswith("it continues elsewhere")
    assert (len(told.said), len(told.started)) == (1, 2)
    assert sum(steps_done(tmp_path).values()) - sum(done.values()) <= 1  # the one it was in
    check_same(record, plan, plugins, tmp_path)
    assert contents(out) == before


@pytest.mark.slow
def test_each_failure_is_told_and_the_rest_goes_on(
    start: Callable[..., Cluster], make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """As on one machine; none is taken for a lost node, and none is tried twice."""
    cluster = start(*THREE)  # whose first trials take a while to start
    faults = {way: {FFN: {"use": "fault", "way": way}} for way in WAYS}
    plan = make_plan(cells=faults, seeds=1)
    record, told = run(plan, plugins, tmp_path / "out", use="ray", address=cluster.address,
                       silence=30)  # fmt: skip
    assert len(told.started) == 1 + len(WAYS)
    assert told.said == []
    found = {f.cell: (f.status, f.error) for f in tabulate(record).failures}
    assert found.keys() == WAYS.keys()
    for way, (status, text) in WAYS.items():
        assert found[way][0] == status
        assert text.replace("for 6 s", "for 30 s") in found[way][1]


@pytest.mark.slow
@pytest.mark.faults(45)
def test_what_takes_its_node_along_is_given_up(
    start: Callable[..., Cluster], make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """A trial that kills Ray's worker each time is tried again once, and is a failure then."""
    cluster = start({"num_cpus": 1})
    (tmp_path / "counts.py").write_text(KILLS)
    plan = make_plan(cells={"poison": {"train.learning_rate": 0.02}}, seeds=1)
    plugins = Plugins.load(files=[tmp_path / "counts.py"], disabled=["fla"])
    record, told = run(plan, plugins, tmp_path / "out", use="ray", address=cluster.address,
                       retries=1)  # fmt: skip
    (failure,) = tabulate(record).failures
    assert (failure.cell, failure.status) == ("poison", "lost")
    assert re.match("lost 2 times; the last time it was lost", failure.error)
    assert len(told.said) == 1
    assert len(record.of("recipe")) == 1


KILLS = """
import os, signal
from pathlib import Path
from strawberry.plugin import hookimpl

@hookimpl
def strawberry_step_done(run, step):
    if run.parent.name.startswith("poison"):
        pid = (run.parent / "node").read_text().rpartition(" ")[2]
        os.kill(int(pid), signal.SIGKILL)
"""


@pytest.mark.slow
def test_uneven_nodes_and_halves_of_a_gpu(
    start: Callable[..., Cluster], make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """Two trials share the only GPU of one node, one has half of that of the other: three at once.

    The GPUs are Ray's word for it: the trials are told which one is theirs, and train on the CPU.
    """
    cluster = start({"num_cpus": 2, "num_gpus": 1}, {"num_cpus": 1, "num_gpus": 1})
    plan = make_plan(seeds=5, vary={FFN: ("swiglu",)})
    fields = {"use": "ray", "address": cluster.address, "gpus": 0.5}
    assert make_executor(fields, plugins).slots == 3
    out = tmp_path / "out"
    most = 0
    thread, found = in_background(lambda: run(plan, plugins, out, **fields))
    while thread.is_alive():
        most = max(most, len(saved(out, 0)))
        time.sleep(0.05)
    thread.join()
    record, _ = found[0]
    assert most == 3
    visible = {line.split()[2] for line in (tmp_path / "steps.txt").read_text().splitlines()}
    assert visible == {"'0'"}
    check_same(record, plan, plugins, tmp_path)


COMMAND = [sys.executable, "-m", "strawberry"]


@pytest.mark.slow
@pytest.mark.faults(42)
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_driver_that_ends_loses_nothing(
    number: signal.Signals,
    own: bool,
    start: Callable[..., Cluster],
    recipe_file: Path,
    plugins: Plugins,
    counts: Path,
    make_plan: PlanMaker,
    tmp_path: Path,
) -> None:
    """Trials save and stop, none is left; the same command goes on, and does no trial twice.

    On a cluster that was there before, and on one that the command starts.
    """
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=2)
    address = "null" if own else f"'{start(*THREE).address}'"
    out = tmp_path / "out"
    options = [str(recipe_file), "--vary", "model.stack.*.ffn=swiglu,geglu", "--seeds", "2"]
    options += ["--out", str(out)]
    options += ["--executor", f"{{use: ray, address: {address}, jobs: 2}}"]
    for override in plan.overrides:
        options += ["--set", override]
    command = [*COMMAND, "--plugin", str(counts), "--no-plugin", "fla", "ablate", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)  # fmt: skip
    until(lambda: saved(out, 5))
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it
    else:
        process.send_signal(number)
    _, told = process.communicate(timeout=300)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), told
    if number != signal.SIGKILL:
        assert told.strip().endswith("run the same command to continue")
        assert not saved(out, 0)
    until(lambda: not writers(out))
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    done = steps_done(tmp_path)
    assert len(done) == 4 * STEPS
    redone = sum(done.values()) - len(done)
    assert redone == 0  # each saved before it stopped
    (tmp_path / "steps.txt").unlink()
    check_same(Record.read(out), plan, plugins, tmp_path)
