"""The contract between an ablation and the executor of its trials, without torch.

A trial is a separate process, `python -m strawberry.ablate.worker FOLDER`. It reads the request in
`FOLDER/trial.json`, trains in `FOLDER/run`, resuming an earlier attempt, and writes its result to
`FOLDER/result.json`. When its standard input closes, it saves and stops.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINISHED = "finished"
STOPPED = "stopped"
"""Stopped on request, and saved: not a failure, and not finished."""
DISQUALIFIED = "disqualified"
"""Trained to its end, but the referee found that its losses can't be trusted."""


@dataclass(frozen=True, slots=True)
class Job:
    """A trial to run.

    Attributes:
        name: name for people: the cell and the seed.
        folder: the trial's folder, which `result.json` is written to. Its parent exists, and must
            not be created again if it is missing: see `process.write_request`.
        request: the request to the worker, as JSON; an executor adds `threads`, `cores` or
            `device`.
    """

    name: str
    folder: Path
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """An ended trial: its `result` has `status` and, unless that is `finished`, `error`."""

    job: Job
    result: Mapping[str, Any]

    @property
    def status(self) -> str:
        """One of `finished`, `stopped`, `diverged`, `out of memory`, `failed`, `killed`, `silent`.

        On other machines also `lost`: the outcome is unknown.
        """
        return str(self.result["status"])


@dataclass(slots=True)
class Events:
    """Receives events of an executor; the default ignores them."""

    started: list[str] = field(default_factory=list)

    def start(self, job: Job) -> None:
        """A job was started."""
        self.started.append(job.name)

    def say(self, text: str) -> None:
        """A warning for the user."""


@dataclass(frozen=True, slots=True)
class ExecutorSite:
    """The site of an executor.

    Attributes:
        folder: where a relative path is looked for: the folder that the ablation was started in.
    """

    folder: Path = Path()


class Executor(abc.ABC):
    """Runs trials, as many at once as it has room for.

    Constructed with `(site, *, fields)`, an `ExecutorSite`. One after the other:

        class InTurn(Executor):
            slots = 1

            def run(self, jobs, events):
                for job in jobs:
                    events.start(job)
                    write_request(job.folder, job.request, events.say)
                    trial = TrialProcess(job.folder, {}, 1800.0)
                    try:
                        while (result := trial.poll()) is None:
                            time.sleep(0.1)
                    finally:
                        stop([trial])
                    yield FinishedJob(job, result)
    """

    def __init__(self, site: ExecutorSite) -> None:
        self.site = site

    @property
    @abc.abstractmethod
    def slots(self) -> int:
        """Number of concurrent trials."""

    @abc.abstractmethod
    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        """Run all jobs, and yield each as it ends, in any way.

        Closing the iterator stops running trials: they save, and are `stopped`. A trial must not be
        able to end the executor.

        Raises:
            StrawberryError: there is nothing to run on.
        """

    def warm_up(self) -> None:  # noqa: B027 (most have nothing to begin)
        """Start slow preparations, such as a server, and return: cells are built meanwhile."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Release resources that are kept between calls of `run`; another `run` may follow."""
