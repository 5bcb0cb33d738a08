"""Trials on this machine: one process each, one for each GPU, or as many as there are cores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt

from strawberry.ablate.process import TrialProcess, stop, warm_up, write_request
from strawberry.contracts.execution import Events, Executor, ExecutorSite, FinishedJob, Job

POLL = 0.05
"""Seconds between polls of the processes."""


@dataclass(slots=True)
class _Running:
    job: Job
    slot: int
    process: TrialProcess


class LocalExecutor(Executor):
    """Processes of this machine, each with its own GPU or cores.

    A trial's output is in `log.txt` of its folder. A trial that is killed or hangs is reported as
    such, and the others continue. When this process ends, its trials save and stop.

    Args:
        jobs: concurrent trials; null takes the number of GPUs, or of cores divided by `threads`.
        threads: cores of a trial on the CPU.
        silence: seconds without a logged step, evaluation or checkpoint after which a trial counts
            as hung.
    """

    def __init__(
        self,
        site: ExecutorSite,
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
        """One slot for each GPU, or for this many cores."""
        return self.jobs or _gpus() or max(1, len(_cores()) // self.threads)

    def warm_up(self) -> None:
        """Start to import modules that every trial needs."""
        warm_up()

    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        """Run each trial in the first free slot."""
        waiting, running = list(jobs)[::-1], list[_Running]()
        free = list(range(self.slots))[::-1]
        try:
            while waiting or running:
                while waiting and free:
                    running.append(self._start(waiting.pop(), free.pop(), events))
                    events.start(running[-1].job)
                time.sleep(POLL)
                for one in list(running):
                    result = one.process.poll()
                    if result is not None:
                        running.remove(one)
                        free.append(one.slot)
                        yield FinishedJob(one.job, result)
        finally:
            stop([one.process for one in running])

    def _start(self, job: Job, slot: int, events: Events) -> _Running:
        cores, gpus = _cores(), _gpus()
        env = {"OMP_NUM_THREADS": str(self.threads)}
        request: dict[str, Any] = {**job.request, "threads": self.threads}
        if gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            index = slot % gpus
            env["CUDA_VISIBLE_DEVICES"] = visible[index] if len(visible) == gpus else str(index)
        else:
            request["cores"] = own_cores(slot, self.slots, self.threads, cores)
        write_request(job.folder, request, events.say)
        return _Running(job, slot, TrialProcess(job.folder, env, self.silence))


def own_cores(slot: int, slots: int, threads: int, cores: Sequence[int]) -> list[int]:
    """The cores of a slot, if all slots together take all cores; else none, for any of them.

    Fewer slots would always take the first cores, and so would those of another sweep, while the
    rest are idle.
    """
    if slots * threads != len(cores):
        return []
    return list(cores[slot * threads : (slot + 1) * threads])


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus() -> int:
    """The number of GPUs, found without creating a context on any.

    Only CUDA's: other devices have no variable that assigns one to a process.
    """
    import torch

    return torch.cuda.device_count()
