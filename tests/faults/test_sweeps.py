"""Section F: what trials and their processes do; most of it is in tests/ablate/test_sweep.py."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
import pytest

from strawberry.ablate import process, waiting
from strawberry.ablate.preparing import prepare
from strawberry.ablate.process import TrialActivity
from strawberry.ablate.report import tabulate
from strawberry.ablate.sweep import Sweep, SweepObserver
from strawberry.ablate.waiting import FolderMissing
from strawberry.contracts.execution import Job
from strawberry.errors import StrawberryError
from strawberry.files.lock import FolderInUse
from strawberry.plugin import Plugins
from tests.ablate.conftest import PlanMaker, make_plan, plugins, recipe_file
from tests.ablate.test_sweep import DYING, FFN, Counts, Scripted, run, scripted
from tests.faults.conftest import Figure

__all__ = ["make_plan", "plugins", "recipe_file"]

WAYS = {
    "exits": ("failed", "exit code 3"),
    "crashes": ("killed", "SIGSEGV"),
    "leaves": ("failed", "SystemExit: 3"),
    "fills the disk": ("failed", "No space left on device"),
    "can't be pickled": ("failed", "Odd: on purpose"),
}


@pytest.mark.slow
@pytest.mark.faults(41)
def test_more_ways_for_a_trial_to_fail(
    make_plan: PlanMaker, tmp_path: Path, figure: Figure
) -> None:
    """Each is told by its kind; one that writes megabytes to its standard error is a result."""
    plugins = Plugins.load(files=[DYING])
    cells = {way: {FFN: {"use": "fault", "way": way}} for way in (*WAYS, "shouts")}
    record, _ = run(make_plan(cells=cells, seeds=1), plugins, tmp_path / "out")
    table = tabulate(record)
    found = {failure.cell: failure for failure in table.failures}
    assert found.keys() == WAYS.keys()
    told = sum(found[way].status == status and text in found[way].error
               for way, (status, text) in WAYS.items())  # fmt: skip
    assert {row.name for row in table.rows if row.values} == {"recipe", "shouts"}
    figure(len(WAYS) + 2, told + 2, "trials told as what they are")


@pytest.mark.faults(46)
def test_a_folder_that_can_not_be_made_is_told(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """Where a file is in its way, before any trial is run."""
    (tmp_path / "file").write_text("")
    plan = make_plan(vary={FFN: ("swiglu", "none")})
    with pytest.raises(StrawberryError, match="out: can't write: Not a directory"):
        run(plan, plugins, tmp_path / "file" / "out")


def later(action: Callable[[], object], seconds: float = 0.3) -> threading.Timer:
    """Do something after a moment, from another thread."""
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


class Vanishing:
    """What `Scripted` asks; at the second trial the ablation's folder is moved away."""

    def __init__(self, out: Path, seconds: float | None) -> None:
        self.out, self.seconds, self.asked = out, seconds, 0
        self.away = out.with_name("elsewhere")

    def __call__(self, recipe: Any) -> float:
        self.asked += 1
        if self.asked == 2:
            self.out.rename(self.away)
            if self.seconds is not None:
                later(lambda: self.away.rename(self.out), self.seconds)
        return 1.0


class Wordless(Scripted):
    """Its trials leave no result themselves, as one whose disk is away can't."""

    def write(self, job: Job, result: Mapping[str, Any]) -> None:
        """Nothing."""


@pytest.mark.faults(46)
def test_a_folder_that_comes_back_is_waited_for(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, figure: Figure
) -> None:
    """Moved away in the middle of a sweep and back again: no trial is lost, or done twice."""
    out, heard = tmp_path / "out", Counts()
    script = Vanishing(out, 0.3)
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=2)
    record = Sweep(prepare(plan, plugins), Wordless(script), out, heard).run()
    assert heard.said == [f"{out} is not accessible; waiting for it for up to 60 s"]
    done = [trial.result() for trial in record.trials]
    figure(script.asked, sum(r is not None and r["status"] == "finished" for r in done), "trials")


@pytest.mark.faults(46)
def test_a_folder_that_stays_away_is_told(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line, after a while; nothing is made in its place, and the same call then goes on."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)
    out = tmp_path / "out"
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=2)
    script = Vanishing(out, None)
    with pytest.raises(FolderMissing, match=r"out: was moved.*run the same command to continue"):
        Sweep(prepare(plan, plugins), Wordless(script), out, SweepObserver()).run()
    assert not out.exists()
    script.away.rename(out)
    again = SweepObserver()
    Sweep(prepare(plan, plugins), Scripted(lambda recipe: 1.0), out, again).run()
    assert len(again.started) == 4 - 1


@pytest.mark.faults(46)
def test_another_folder_of_that_name_is_not_taken_for_it(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody makes one anew meanwhile, no result is written into it."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)
    out = tmp_path / "out"

    class Replaced(Vanishing):
        def __call__(self, recipe: Any) -> float:
            loss = super().__call__(recipe)
            if self.asked == 2:
                (self.out / "trials").mkdir(parents=True)
                (self.out / ".lock").touch()
            return loss

    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=1)
    with pytest.raises(FolderMissing):
        Sweep(prepare(plan, plugins), Wordless(Replaced(out, None)), out, SweepObserver()).run()
    assert not list(out.rglob("*.json"))


@pytest.mark.faults(46)
def test_a_lock_that_another_has_is_waited_for(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back after a moment, the sweep goes on; kept, its holder is named."""
    out, heard = tmp_path / "out", Counts()
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=1)
    out.mkdir()
    (out / ".holder").write_text("process 1 on elsewhere")
    other = filelock.FileLock(out / ".lock", thread_local=False)
    other.acquire()
    sweep = Sweep(prepare(plan, plugins), Scripted(lambda recipe: 1.0), out, heard)
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)
    with pytest.raises(FolderInUse, match="out: process 1 on elsewhere runs this ablation"):
        sweep.run()
    monkeypatch.setattr(waiting, "PATIENCE", 60)
    timer = later(other.release)
    assert len(sweep.run().trials) == 2
    timer.join()
    assert len(heard.said) == 2


@pytest.mark.faults(46, control=True)
def test_without_waiting_a_folder_that_comes_back_would_be_lost(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no patience the sweep that survives a folder that was away for a moment ends."""
    monkeypatch.setattr(waiting, "PATIENCE", 0)
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=2)
    with pytest.raises(FolderMissing):
        Sweep(
            prepare(plan, plugins), Wordless(Vanishing(tmp_path / "out", 0.3)), tmp_path / "out",
            SweepObserver(),
        ).run()  # fmt: skip


@pytest.mark.slow
@pytest.mark.faults(46)
def test_real_trials_survive_a_folder_that_is_away(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path, figure: Figure
) -> None:
    """Moved away while a trial trains, for two seconds: it goes on from its last checkpoint."""
    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=1,
                     overrides=("train.max_iters=200", "train.checkpoint_interval=10"))  # fmt: skip
    whole, _ = run(plan, plugins, tmp_path / "whole", jobs=1)
    out, away = tmp_path / "out", tmp_path / "elsewhere"

    def move() -> None:
        deadline = time.monotonic() + 60
        while not any(out.glob("trials/*/run/checkpoints/step-*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        out.rename(away)
        later(lambda: away.rename(out), 2)

    mover = threading.Thread(target=move)
    mover.start()
    record, _ = run(plan, plugins, out, jobs=1)
    mover.join()
    same = [row.values for row in tabulate(record).rows] == [
        row.values for row in tabulate(whole).rows
    ]
    figure(2, 2 * same, "trials with the same result")


@pytest.mark.faults(23)
def test_a_jump_of_the_clock_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that is heard of is not taken for one that hangs when the clock goes days back."""
    log = tmp_path / "run" / "metrics.jsonl"
    log.parent.mkdir()
    now, began, passed = time.time(), time.monotonic(), [0.0]
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    monkeypatch.setattr(time, "monotonic", lambda: began + passed[0])
    life = TrialActivity(tmp_path, 100)
    for number in range(5):
        passed[0] += 60
        log.write_text("x" * number)
        os.utime(log, (now - 86_400 * number, now - 86_400 * number))
        assert life.is_active()
    passed[0] += 200
    assert not life.is_active()


@pytest.mark.faults(41, control=True)
def test_a_result_from_before_would_be_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed trial with the result of an earlier try in its folder would count as finished."""
    (tmp_path / "result.json").write_text('{"status": "finished"}')
    assert process.outcome(tmp_path, -9)["status"] == "finished"
    started = type("Process", (), {"start": lambda self: None})()
    context = type("Context", (), {"Process": lambda self, **options: started})()
    monkeypatch.setattr(process, "_context", lambda: context)
    process.TrialProcess(tmp_path, {}, 10)
    assert process.outcome(tmp_path, -9)["status"] == "killed"


@pytest.mark.faults(42, control=True)
def test_what_is_not_known_as_done_is_run_again(
    make_plan: PlanMaker, plugins: Plugins, tmp_path: Path
) -> None:
    """A result that is of another recipe, seed or data is no result; else none is done twice."""
    started: list[str] = []

    def loss(recipe: Any) -> float:
        started.append(recipe["name"])
        return 1.0

    plan = make_plan(vary={FFN: ("swiglu", "geglu")}, seeds=2)
    record = scripted(plan, plugins, tmp_path / "out", loss)
    assert len(started) == 4
    scripted(plan, plugins, tmp_path / "out", loss)
    assert len(started) == 4
    file = record.trials[0].folder / "trial.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "key": "another"}))
    scripted(plan, plugins, tmp_path / "out", loss)
    assert len(started) == 5
