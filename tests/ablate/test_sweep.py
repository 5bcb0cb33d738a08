"""Ablations of real processes: what fails is told, what is done is not done again."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

from strawberry.ablate.plan import Plan, Range
from strawberry.ablate.preparing import prepare
from strawberry.ablate.process import write_request
from strawberry.ablate.record import Record
from strawberry.ablate.report import tabulate, write_report
from strawberry.ablate.reproduce import reproduce
from strawberry.ablate.sweep import Sweep, SweepObserver, make_executor
from strawberry.ablate.trials import Trials
from strawberry.cli.app import run as command
from strawberry.contracts.execution import FINISHED, Events, Executor, FinishedJob, Job
from strawberry.errors import RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe import load_recipe
from strawberry.stopping import STOPPING
from tests.ablate import dying
from tests.ablate.conftest import PlanMaker
from tests.referee import cheats

FFN = "model.stack.*.ffn"
CHEATS = Path(cheats.__file__)
"""The plugin file of components that see what they must not."""
DYING = Path(dying.__file__)
"""The plugin file of components that fail."""
WAYS = {
    "raises": ("failed", "RuntimeError: on purpose"),
    "is killed": ("killed", "SIGKILL"),
    "hangs": ("silent", "no progress for 6 s"),
    "runs out of memory": ("out of memory", "on purpose"),
    "diverges": ("diverged", "not finite at step 4"),
}
"""Some ways of it to fail, and what is to be told of each."""


class Counts(SweepObserver):
    """Which trials were started, and what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Note it."""
        self.said.append(text)

    def names(self) -> list[str]:
        """Theirs."""
        return self.started


def run(plan: Plan, plugins: Plugins, out: Path, **fields: Any) -> tuple[Record, Counts]:
    """The ablation, with the local executor and these fields."""
    watcher = Counts()
    executor = make_executor({"use": "local", **fields}, plugins)
    return Sweep(prepare(plan, plugins), executor, out, watcher).run(), watcher


@pytest.mark.faults(41, 45)
def test_each_failure_is_told_and_the_rest_goes_on(make_plan: PlanMaker, tmp_path: Path) -> None:
    """Five ways to fail beside a cell that works; none is a result, and all are in the table.

    The same call tries the failed ones again, and the finished ones never.
    """
    plugins = Plugins.load(files=[DYING])
    faults = {way: {FFN: {"use": "fault", "way": way}} for way in WAYS}
    plan = make_plan(cells=faults, seeds=1)
    record, watcher = run(plan, plugins, tmp_path / "out", silence=6)
    assert len(watcher.names()) == 1 + len(WAYS)
    table = tabulate(record)
    found = {f.cell: (f.status, f.error) for f in table.failures}
    assert found.keys() == WAYS.keys()
    for way, (status, text) in WAYS.items():
        assert found[way][0] == status
        assert text in found[way][1]
    assert [row.name for row in table.rows if row.values] == ["recipe"]
    assert {row.verdict for row in table.rows} == {"baseline", "failed"}
    texts = [file.read_text() for file in write_report(record) if file.suffix != ".csv"]
    assert all(f"{way} seed 1" in text for way in WAYS for text in texts)
    _, again = run(plan, plugins, tmp_path / "out", silence=6)
    assert sorted(again.names()) == sorted(f"{way} seed 1" for way in WAYS)


def test_a_cell_that_cheats_is_disqualified(make_plan: PlanMaker, tmp_path: Path) -> None:
    """Its trials train to their ends and are not tried again; the table shows no value of it."""
    plugins = Plugins.load(files=[CHEATS])
    plan = make_plan(cells={"peeks": {"model.stack.*.attention": "SequenceMean"}}, seeds=1)
    record, watcher = run(plan, plugins, tmp_path / "out")
    assert len(watcher.names()) == 2
    table = tabulate(record)
    verdicts = {row.name: (row.verdict, len(row.values)) for row in table.rows}
    assert verdicts == {"recipe": ("baseline", 1), "peeks": ("disqualified", 0)}
    (failure,) = table.failures
    assert "(SequenceMean): tokens from" in failure.error
    _, again = run(plan, plugins, tmp_path / "out")
    assert again.names() == []


def test_a_table_of_two_cells(make_plan: PlanMaker, plugins: Plugins, tmp_path: Path) -> None:
    """Pairs of seeds, tuned rates, all in the record; a trial of it can be reproduced to the bit.

    The same call again runs nothing; one seed more runs what is new.
    """
    plan = make_plan(vary={FFN: ("swiglu", "none")}, seeds=2,
                     tune={"train.learning_rate": (1e-2, 1e-4)})  # fmt: skip
    out = tmp_path / "out"
    record, watcher = run(plan, plugins, out)
    assert len(watcher.names()) == 2 * 2 + 2 * 2
    tuned = {cell["name"]: cell["tuned"] for cell in record.content["cells"]}
    assert tuned == {name: {"train.learning_rate": 0.01} for name in ("ffn=swiglu", "ffn=none")}
    for name in tuned:
        assert [trial.seed for trial in record.of(name)] == [1, 2]
        assert {trial.seed for trial in record.of(name, "tune")} == {1001}
    orders = {
        json.loads((trial.folder / "run" / "run.json").read_text())["data"]["fingerprint"]
        for trial in record.trials
    }
    assert len(orders) == 1
    table = tabulate(record)
    values = {row.name: row.values for row in table.rows}
    for name, by_seed in values.items():
        for trial in record.of(name):
            last = [row for row in trial.rows() if "val_loss" in row][-1]
            assert by_seed[trial.seed] == last["val_loss"]
    assert table.rows[0].cell["tuning_trials"] == 2
    _, again = run(plan, plugins, out)
    assert again.names() == []
    _, more = run(make_plan(**{**_fields(plan), "seeds": 3}), plugins, out)
    assert sorted(more.names()) == ["ffn=none seed 3", "ffn=swiglu seed 3"]
    found = reproduce(record.of("ffn=none")[0].folder)
    assert found.agrees
    assert found.same_losses == found.losses > 6


def _fields(plan: Plan) -> dict[str, Any]:
    return {"vary": plan.vary, "tune": plan.tune}


class Scripted(Executor):
    """Writes results instead of training: what `loss` says of a trial's recipe."""

    slots = 1

    def __init__(self, loss: Callable[[Mapping[str, Any]], float | None]) -> None:
        self.loss = loss

    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        """One after the other."""
        for job in jobs:
            events.start(job)
            write_request(job.folder, job.request, events.say)
            loss = self.loss(yaml.safe_load(job.request["recipe"]))
            result: dict[str, Any] = {"status": "diverged", "error": "on purpose"}
            if loss is not None:
                result = {"status": FINISHED, "metrics": {"val_loss": loss}, "spent": 1.0}
            self.write(job, result)
            yield FinishedJob(job, result)

    def write(self, job: Job, result: Mapping[str, Any]) -> None:
        """What a trial's own process leaves."""
        (job.folder / "result.json").write_text(json.dumps(result))


def scripted(
    plan: Plan, plugins: Plugins, out: Path, loss: Callable[[Mapping[str, Any]], float | None]
) -> Record:
    """The record of an ablation whose results are these."""
    return Sweep(prepare(plan, plugins), Scripted(loss), out, SweepObserver()).run()


def test_cells_that_come_to_one_trial_share_it(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """Where tuning makes two cells alike, the trial is run once, and both have its result."""
    stack = "model.stack[0]"
    cells = {"a": {f"{stack}.ffn": "geglu"}, "b": {f"{stack}.ffn": "reglu"}}
    plan = make_plan(cells=cells, seeds=1, tune={FFN: ("swiglu", "glu")})
    record = scripted(plan, plugins, tmp_path / "out", lambda recipe: 1.0)
    folders = {cell: record.of(cell)[0].folder for cell in ("a", "b")}
    assert folders["a"] == folders["b"]
    assert all(row.values == {1: 1.0} for row in tabulate(record).rows)


def test_a_table_without_a_baseline_is_a_failure(
    make_plan: PlanMaker,
    plugins: Plugins,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its report is made all the same; the exit code is 1, and one line says what is missing."""
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=1)

    def loss(recipe: Mapping[str, Any]) -> float | None:
        return None if "swiglu" in json.dumps(recipe["model"]) else 1.0

    scripted(plan, plugins, tmp_path / "out", loss)
    assert command(["report", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "geglu" in told.out
    assert "no trial of the baseline 'ffn=swiglu' finished" in told.err


def test_halving_drops_the_worse_half(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """Of six cells the worse three go, one that diverges first; the baseline stays in any case."""
    rates = (0.9, 0.1, 0.2, 0.3, 0.4, 0.5)
    plan = make_plan(vary={"train.learning_rate": rates}, seeds=1, halving=True)

    def loss(recipe: Mapping[str, Any]) -> float | None:
        rate = float(recipe["train"]["learning_rate"])
        return None if rate == 0.2 else rate

    table = tabulate(scripted(plan, plugins, tmp_path / "out", loss))
    assert set(table.pruned) == {f"learning_rate={rate}" for rate in (0.2, 0.4, 0.5)}
    assert "failed after 25%" in table.pruned["learning_rate=0.2"]
    assert [row.name for row in table.rows] == [f"learning_rate={r}" for r in (0.1, 0.3, 0.9)]
    assert table.baseline == "learning_rate=0.9"


@pytest.mark.parametrize(("shift", "noise", "seeds"), [(0.5, 0.001, 3), (0.0, 0.2, 6)])
def test_seeds_are_added_until_all_is_decided(
    shift: float, noise: float, seeds: int, make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """A cell that is far worse needs three; one that differs by chance alone takes all."""
    plan = make_plan(vary={"train.learning_rate": (0.1, 0.2)}, seeds=None, max_seeds=6)

    def loss(recipe: Mapping[str, Any]) -> float:
        other = float(recipe["train"]["learning_rate"]) == 0.2
        chance = [0.3, -0.7, 0.9, -0.2, -0.5, 0.4][recipe["seed"] - 1]
        return 3 + recipe["seed"] / 10 + other * (shift + noise * chance)

    record = scripted(plan, plugins, tmp_path / "out", loss)
    assert len(record.of("learning_rate=0.2")) == seeds
    assert record.content["looks"] == 4


def test_each_cell_gets_its_own_best_rate(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """A rate that diverges with some seed is no choice; a cell without any is listed, not run."""
    plan = make_plan(vary={FFN: ("swiglu", "geglu", "none")}, seeds=2, tune_seeds=2,
                     tune={"train.learning_rate": (0.1, 0.2, 0.3)})  # fmt: skip
    best = {"swiglu": 0.2, "geglu": 0.3, "none": 0.0}

    def loss(recipe: Mapping[str, Any]) -> float | None:
        ffn = recipe["model"]["stack"][0]["stack"][0].get("ffn", {"use": "strawberry/none"})
        name = ffn["use"].removeprefix("strawberry/")
        rate = float(recipe["train"]["learning_rate"])
        if name == "none" or (rate == 0.1 and recipe["seed"] == 1002):
            return None
        return abs(rate - best[name]) if rate != 0.1 else -1.0

    record = scripted(plan, plugins, tmp_path / "out", loss)
    cells = {cell["name"]: cell for cell in record.content["cells"]}
    assert cells["ffn=swiglu"]["tuned"] == {"train.learning_rate": 0.2}
    assert cells["ffn=geglu"]["tuned"] == {"train.learning_rate": 0.3}
    assert cells["ffn=none"]["pruned"] == "no tuning trial finished"
    assert {cell["tuning_trials"] for cell in cells.values()} == {6}


def test_a_tuned_path_without_effect_is_told(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """An optimizer with a rate of its own never reads the tuned one; another cell's does."""
    own = {"optimizer": {"use": "sgd", "lr": 0.3}}
    tune = {"train.learning_rate": (0.1, 0.2), "train.grad_clip": (0.5, 1.0)}
    plan = make_plan(cells={"own": own}, seeds=1, tune=tune)

    def loss(recipe: Mapping[str, Any]) -> float:
        train = recipe["train"]
        own = recipe["optimizer"]["use"].endswith("sgd")
        return (0.3 if own else float(train["learning_rate"])) + float(train["grad_clip"])

    record = scripted(plan, plugins, tmp_path / "out", loss)
    told = {cell["name"]: cell["warnings"] for cell in record.content["cells"]}
    no_effect = "tuning train.learning_rate had no effect: every value gave the same val_loss"
    assert told == {"recipe": [], "own": [no_effect]}


def test_optuna_proposes_the_same_again(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """From a range; six trials for each cell, near the best, and none is asked for twice."""
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=1, tune_trials=6,
                     tune={"train.learning_rate": Range(1e-4, 1e-1)})  # fmt: skip

    def loss(recipe: Mapping[str, Any]) -> float:
        return abs(math.log(float(recipe["train"]["learning_rate"]) / 3e-3))

    record = scripted(plan, plugins, tmp_path / "out", loss)
    assert [len(record.of(cell, "tune")) for cell in ("ffn=swiglu", "ffn=geglu")] == [6, 6]
    watcher = SweepObserver()
    Sweep(prepare(plan, plugins), Scripted(loss), tmp_path / "out", watcher).run()
    assert watcher.started == []


def test_the_key_is_of_all_that_decides(
    recipe_file: Path, plugins: Plugins, tmp_path: Path
) -> None:
    """Seed, recipe and data change it; names, devices and how often is logged don't."""
    trials = Trials(tmp_path)

    def key(*overrides: str, seed: int = 1) -> str:
        return trials.make("c", load_recipe(recipe_file, overrides, plugins=plugins), seed).key

    assert key() == key("name=other", "train.threads=1", "train.log_interval=3")
    different = {key(), key(seed=2), key("train.max_iters=5"), key("model.n_embd=32"),
                 key("optimizer=lion"), key("data.data_division=0.8")}  # fmt: skip
    assert len(different) == 6
    (tmp_path / "text.txt").write_text("other words. " * 500)
    assert Trials(tmp_path).make("c", load_recipe(recipe_file, plugins=plugins), 1).key != key()


COMMAND = [sys.executable, "-m", "strawberry", "ablate"]


@pytest.mark.slow
@pytest.mark.faults(42)
@pytest.mark.parametrize(
    ("number", "to_all"),
    [
        *((one, False) for one in (*STOPPING, signal.SIGKILL)),
        (signal.SIGUSR1, True),
    ],
)
def test_interrupted_sweeps_lose_nothing(
    number: signal.Signals, to_all: bool, recipe_file: Path, tmp_path: Path
) -> None:
    """Trials save and stop, none is left behind, and the same command ends with the same losses.

    `to_all`: every process has the signal, as from a cluster that warns of the end of its time.
    """
    options = [str(recipe_file), "--set", "train.max_iters=60", "--seeds", "1",
               "--set", "train.checkpoint_interval=10",
               "--vary", "ffn=swiglu,geglu", "--executor", "{use: local, jobs: 1}"]  # fmt: skip
    whole = subprocess.run([*COMMAND, *options, "--out", str(tmp_path / "whole")],
                           check=False, capture_output=True, text=True)  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, *options, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait(lambda: any(out.glob("trials/*/run/checkpoints/step-*")))
    for pid in _below(process.pid) if to_all else ():
        os.kill(pid, number)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert "run the same command to continue" in told
    _wait(lambda: not _held(out))
    steps = [int(p.name.removeprefix("step-")) for p in out.glob("trials/*/run/checkpoints/step-*")]
    assert 0 < max(steps) < 60
    again = subprocess.run([*COMMAND, *options, "--out", str(out)],
                           check=False, capture_output=True, text=True)  # fmt: skip
    assert again.returncode == 0, again.stderr
    one, other = Record.read(tmp_path / "whole"), Record.read(out)
    for before, after in zip(one.trials, other.trials, strict=True):
        assert before.key == after.key
        logs = [
            [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in trial.rows()]
            for trial in (before, after)
        ]
        assert logs[0] == logs[1]
        result = after.result()
        assert result is not None
        assert result["status"] == FINISHED


def _below(pid: int) -> list[int]:
    """The processes that this one started, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *_below(child))]


def _wait(done: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _held(out: Path) -> bool:
    """Whether some process still trains in this folder."""
    for path in out.glob("trials/*/run/.lock"):
        try:
            filelock.FileLock(path).acquire(timeout=0).lock.release()
        except filelock.Timeout:
            return True
    return False


def test_executors_are_components(plugins: Plugins) -> None:
    """Named as everything else, with fields; what is none is told at its place."""
    assert make_executor("local", plugins).slots >= 1
    assert make_executor({"use": "local", "jobs": 3}, plugins).slots == 3
    with pytest.raises(RecipeError, match="unknown executor 'loca'; did you mean 'local'"):
        make_executor("loca", plugins)
    with pytest.raises(RecipeError, match="jobs"):
        make_executor({"use": "local", "jobs": 0}, plugins)
    local = make_executor("local", plugins)
    local.warm_up()
    assert list(local.run([], Events())) == []
