"""Trials on this machine: a process each, one a GPU, or as many as there are cores."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt

from strawberry.ablate.contracts import Ended, Events, Executor, Job
from strawberry.ablate.worker import child

POLL = 0.05
"""Seconds between two looks at the processes."""
GRACE = 120.0
"""Seconds that a trial has to save when it is stopped."""


@dataclass(slots=True)
class _Running:
    job: Job
    slot: int
    process: Any
    heard: float


class Local(Executor):
    """Processes of this machine; each has a GPU, or cores, of its own.

    What a trial prints is in `log.txt` of its folder. A trial that is killed, or hangs, is told as
    such, and the others go on. They outlive nothing: where this process ends, they save and stop.

    Args:
        jobs: trials at once; null takes the GPUs, or the cores divided by `threads`.
        threads: cores of a trial on the CPU.
        silence: seconds without a logged step, evaluation or checkpoint until it counts as hanging.
    """

    def __init__(
        self,
        *,
        jobs: Annotated[int, Ge(1)] | None = None,
        threads: Annotated[int, Ge(1)] = 1,
        silence: Annotated[float, Gt(0)] = 1800.0,
    ) -> None:
        self.jobs = jobs
        self.threads = threads
        self.silence = silence

    @property
    def slots(self) -> int:
        """One a GPU, or one for so many cores."""
        return self.jobs or _gpus() or max(1, len(_cores()) // self.threads)

    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[Ended]:
        """Each trial in the first free slot."""
        waiting, running = list(jobs)[::-1], list[_Running]()
        free = list(range(self.slots))[::-1]
        try:
            while waiting or running:
                while waiting and free:
                    running.append(self._start(waiting.pop(), free.pop()))
                    events.start(running[-1].job)
                time.sleep(POLL)
                for one in list(running):
                    ended = self._look(one)
                    if ended is not None:
                        running.remove(one)
                        free.append(one.slot)
                        yield ended
        finally:
            _stop(running)

    def _start(self, job: Job, slot: int) -> _Running:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "result.json").unlink(missing_ok=True)
        cores, gpus = _cores(), _gpus()
        env = {"OMP_NUM_THREADS": str(self.threads)}
        request: dict[str, Any] = {**job.request, "threads": self.threads}
        if gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            index = slot % gpus
            env["CUDA_VISIBLE_DEVICES"] = visible[index] if len(visible) == gpus else str(index)
        elif self.slots * self.threads <= len(cores):
            request["cores"] = cores[slot * self.threads : (slot + 1) * self.threads]
        (job.folder / "trial.json").write_text(json.dumps(request))
        process = _context().Process(target=child, args=(str(job.folder), env))
        process.start()
        return _Running(job, slot, process, time.time())

    def _look(self, one: _Running) -> Ended | None:
        """How it ended, or None while it runs; one that is silent for too long is killed."""
        code = one.process.exitcode
        if code is not None:
            one.process.join()
            return Ended(one.job, _result(one.job.folder, code))
        last = max(one.heard, _last_sign(one.job.folder / "run"))
        if time.time() - last < self.silence:
            return None
        one.process.kill()
        one.process.join()
        text = f"nothing was heard of it for {self.silence:g} s"
        return Ended(one.job, {"status": "silent", "error": text})


def _context() -> Any:
    """Processes forked from one that has imported everything, where there is such a thing."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["strawberry.ablate.preload"])
    return context


def _result(folder: Path, code: int) -> dict[str, Any]:
    """What the worker left, or what its exit code says."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; was memory short?" if name == "SIGKILL" else ""
            return {"status": "killed", "error": f"killed by {name}{hint}"}
        return {"status": "failed", "error": f"exit code {code}; see {folder / 'log.txt'}"}
    return result


def _stop(running: Sequence[_Running]) -> None:
    """Ask all to save and stop, and wait for them."""
    for one in running:
        one.process.terminate()
    deadline = time.monotonic() + GRACE
    for one in running:
        one.process.join(max(0.1, deadline - time.monotonic()))
        if one.process.exitcode is None:
            one.process.kill()
            one.process.join()


def _last_sign(run: Path) -> float:
    """When the run's log or its checkpoints last changed."""
    found = 0.0
    for path in (run / "metrics.jsonl", run / "checkpoints", run):
        with contextlib.suppress(OSError):
            found = max(found, path.stat().st_mtime)
    return found


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus() -> int:
    """How many GPUs there are; asked without making a context on any."""
    import torch

    return torch.cuda.device_count()
