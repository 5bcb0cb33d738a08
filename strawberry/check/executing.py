"""Checks of executors: every trial runs, is reported, and stops on request."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from strawberry.ablate.sweep import make_executor
from strawberry.ablate.trials import Trials
from strawberry.check import dies
from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.contracts.execution import FINISHED, Events, Executor, FinishedJob, Job
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from strawberry.recipe.load import patch
from strawberry.recipe.spec import Recipe
from strawberry.runs.folder import RunFolder
from strawberry.training import train

SEEDS: Final = (1, 2, 3)
PATIENCE: Final = 120.0
"""Seconds within which a trial has to report its start."""
LONG: Final = 100_000
"""Number of steps of a trial that is stopped early."""


class _Enough(BaseException):
    """Raised by a signal in an executor, as in a sweep."""


def runs(subject: Subject) -> str:
    """Does every trial report its start and end once, with the result of the same run here?"""
    with tempfile.TemporaryDirectory() as name:
        folder, events = Path(name), Events()
        jobs = [_job(folder, subject.recipe, seed) for seed in SEEDS]
        with contextlib.closing(_executor(subject)) as executor:
            slots = executor.slots
            if slots < 1:
                raise Finding(f"it has {slots} slots, so it can run no trial")
            ended = _by_folder(jobs, executor.run(jobs, events))
        for job in jobs:
            one = ended[job.folder]
            if job.name not in events.started:
                raise Finding(f"{job.name!r} ended, but its start was never reported")
            if one.status != FINISHED:
                raise Finding(f"{job.name!r} ended as {one.status}: {one.result.get('error')}")
        here = train(patch(subject.recipe, {"seed": SEEDS[-1]}), folder / "here").metrics[
            "val_loss"
        ]
        there = ended[jobs[-1].folder].result["metrics"]["val_loss"]
        if there != here:
            raise Finding(f"its trial has a loss of {there!r}, the same run here {here!r}")
        return f"{len(jobs)} trials, {slots} at once"


def failures(subject: Subject) -> str:
    """Is a trial that raises or dies reported with a reason, and do the others run?"""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugins = Plugins.load(files=[Path(dies.__file__)])
        dying = dataclasses.replace(subject.recipe, plugins=plugins)
        broken = [
            _job(folder, patch(dying, {"model.stack.*.ffn": {"use": "dies", "way": way}}), 1)
            for way in dies.Dies.ways
        ]
        sound = [_job(folder, subject.recipe, seed) for seed in SEEDS[:2]]
        jobs = [sound[0], *broken, sound[1]]
        with contextlib.closing(_executor(subject)) as executor:
            ended = _by_folder(jobs, executor.run(jobs, Events()))
        for job in sound:
            if (status := ended[job.folder].status) != FINISHED:
                raise Finding(f"when other trials fail, {job.name!r} ends as {status}")
        for way, job in zip(dies.Dies.ways, broken, strict=True):
            one = ended[job.folder]
            if one.status == FINISHED or not one.result.get("error"):
                raise Finding(f"a trial that {way} ended as {one.status}, without a reason")
        return ", ".join(
            f"{way}: {ended[job.folder].status}"
            for way, job in zip(dies.Dies.ways, broken, strict=True)
        )


def stops(subject: Subject) -> str:
    """On an interruption, do its trials save, and does it wait for them?"""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGUSR1"):
        raise NotApplicable("an interruption needs signals, which only the main thread receives")
    settings = {"train.max_iters": LONG, "train.checkpoint_interval": 0, "train.eval_interval": 0}
    with tempfile.TemporaryDirectory() as name:
        job = _job(Path(name), patch(subject.recipe, settings), 1)
        with contextlib.closing(_executor(subject)) as executor:
            _interrupted(executor.run([job], Events()), job)
        runs = [path / "run" for path in job.folder.parent.glob(f"{job.folder.name}*")]
        run = RunFolder(next((path for path in runs if path.exists()), job.folder / "run"))
        try:
            run.hold()
        except StrawberryError as error:
            raise Finding(f"after an interruption its trial keeps running: {error}") from error
        run.release()
        saved = max((int(p.name[5:]) for p in run.checkpoints.glob("step-*")), default=0)
        if not saved:
            raise Finding("after an interruption its trial had saved nothing")
        return f"interrupted; the trial was saved at step {saved}"


def _interrupted(ending: Iterator[FinishedJob], job: Job) -> None:
    """Run until the trial has logged a step; then a signal interrupts it."""

    def enough(*_: object) -> None:
        raise _Enough

    def watch() -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            logs = job.folder.parent.glob(f"{job.folder.name}*/run/metrics.jsonl")
            if any(path.stat().st_size for path in logs):
                break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, enough)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for _ in ending:
            pass
        watcher.join()
        raise Finding("it swallows the interruption")
    except _Enough:
        pass
    finally:
        if hasattr(ending, "close"):
            ending.close()
        signal.signal(signal.SIGUSR1, before)


def _by_folder(jobs: Sequence[Job], ending: Iterator[FinishedJob]) -> dict[Path, FinishedJob]:
    """The outcome of each job; each must end exactly once."""
    ended = list(ending)
    for job in jobs:
        times = sum(one.job.folder == job.folder for one in ended)
        if times != 1:
            raise Finding(f"{job.name!r} ended {times} times")
    return {one.job.folder: one for one in ended}


def _executor(subject: Subject) -> Executor:
    assert subject.entry is not None
    assert subject.recipe.plugins is not None
    wanted = {"use": subject.entry.full_name, **subject.fields}
    return make_executor(wanted, subject.recipe.plugins)


def _job(folder: Path, recipe: Recipe, seed: int) -> Job:
    return Trials(folder).make("check", recipe, seed).job()
