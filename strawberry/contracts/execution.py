"""The contract between an ablation and what runs its trials, without torch.

A trial is a process of its own, `python -m strawberry.ablate.worker FOLDER`. It reads the request
in `FOLDER/trial.json`, trains in `FOLDER/run`, going on from what is there already, and leaves its
result in `FOLDER/result.json`. When its standard input ends, it saves and stops.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINISHED = "finished"
STOPPED = "stopped"
"""Asked to stop, and saved: not a failure, and not done."""
DISQUALIFIED = "disqualified"
"""Trained to its end, and the referee found that its losses can't be believed."""


@dataclass(frozen=True, slots=True)
class Job:
    """A trial that is to be run.

    Attributes:
        name: what a person calls it: the cell and the seed.
        folder: where it is run; `result.json` is in it afterwards. The folder around it is there,
            and is not to be made anew where it is away: see `process.ask`.
        request: what the worker is told, as JSON; an executor adds `threads`, `cores` or `device`.
    """

    name: str
    folder: Path
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A trial that ended: its `result` has `status` and, unless that is `finished`, `error`."""

    job: Job
    result: Mapping[str, Any]

    @property
    def status(self) -> str:
        """How: `finished`, `stopped`, `diverged`, `out of memory`, `failed`, `killed`, `silent`.

        On other machines also `lost`: nobody can tell.
        """
        return str(self.result["status"])


@dataclass(slots=True)
class Events:
    """What an executor tells while it runs; the default tells nobody."""

    started: list[str] = field(default_factory=list)

    def start(self, job: Job) -> None:
        """A job was started."""
        self.started.append(job.name)

    def say(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True, slots=True)
class ExecutorSite:
    """What an executor is told.

    Attributes:
        folder: where a relative path is looked for: the folder that the ablation was started in.
    """

    folder: Path = Path()


class Executor(abc.ABC):
    """Runs trials, as many at once as it has room for.

    Constructed with `(site, *, fields)`, an `ExecutorSite`.
    """

    def __init__(self, site: ExecutorSite) -> None:
        self.site = site

    @property
    @abc.abstractmethod
    def slots(self) -> int:
        """How many trials it runs at once."""

    @abc.abstractmethod
    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        """Run all jobs, and yield each as it ends, whichever way.

        Closing the iterator stops what is running: trials save, and are `stopped`. Nothing that a
        trial does may end the executor.

        Raises:
            StrawberryError: there is nothing to run on.
        """

    def warm_up(self) -> None:  # noqa: B027 (most have nothing to begin)
        """Begin what takes a while, as a server's start, and return: cells are built meanwhile."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Let go of what is held from one `run` to the next; another `run` may follow."""
