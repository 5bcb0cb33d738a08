"""One round of trials on a cluster: Ray says where, and tells when a node is lost."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions

from strawberry.ablate import GRACE, TrialActivity
from strawberry.contracts import Events, FinishedJob, Job
from strawberry.errors import StrawberryError
from strawberry_ray import cluster
from strawberry_ray.attempts import NODE, Claim, claim, release
from strawberry_ray.node import TAKEN, UNFIT, attempt, installed

POLL = 0.1
"""Seconds between two looks at the attempts."""
LOOK = 1.0
"""Seconds between two looks at the nodes."""
LOST = "lost"
"""The outcome of an attempt is unknown."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A trial's requirements and tolerances: the executor's fields."""

    cpus: int
    gpus: float
    jobs: int | None
    silence: float
    retries: int


@dataclass(slots=True)
class _Running:
    job: Job
    number: int
    claimed: Claim
    node: str = ""
    """The id of its node, which is known once that has begun."""
    life: TrialActivity | None = None


class Round:
    """These jobs, each until it has ended in a way that is known, or was lost too often."""

    def __init__(self, settings: Settings, jobs: Sequence[Job], events: Events) -> None:
        self.settings = settings
        self.events = events
        self.waiting = deque((job, 1) for job in jobs)
        self.running: dict[Any, _Running] = {}
        self._room, self._looked, self._had_room = 0, 0.0, time.monotonic()
        self._dead = frozenset[str]()
        self._task = ray.remote(max_calls=0)(attempt).options(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            max_retries=0,  # Ray would not claim the trial's folder anew
            scheduling_strategy="SPREAD",
        )

    def run(self) -> Iterator[FinishedJob]:
        """Yield each as it ends.

        Raises StrawberryError if a node can't run trials, or none is left.
        """
        try:
            while self.waiting or self.running:
                self._look_around()
                while self.waiting and len(self.running) < self._room:
                    done = self._start(*self.waiting.popleft())
                    if done is not None:
                        yield done
                for ref, result in self._wait():
                    ended = self._end(self.running.pop(ref), result)
                    if ended is not None:
                        yield ended
        finally:
            self._stop()

    def _start(self, job: Job, number: int) -> FinishedJob | None:
        """Claim a trial and hand it to Ray; one that was done when its node was lost has ended."""
        asked = {**job.request, "threads": self.settings.cpus, "gpus": self.settings.gpus}
        claimed = claim(job.folder.absolute(), asked, number)
        if number == 1:
            self.events.start(job)
        if claimed.result is not None:
            release(claimed, job.folder)
            return FinishedJob(job, claimed.result)
        ref = self._task.remote(
            str(claimed.folder), claimed.request, self.settings.silence, installed()
        )  # fmt: skip
        self.running[ref] = _Running(job, number, claimed)
        return None

    def _wait(self) -> list[tuple[Any, dict[str, Any]]]:
        """The attempts that have ended after a moment, or that nobody answers for."""
        if not self.running:
            time.sleep(POLL)
            return []
        ready, rest = _wait(list(self.running), POLL)
        finished = [(ref, _result(ref)) for ref in ready]
        for ref in rest:
            if why := self._gone(self.running[ref]):
                ray.cancel(ref, force=True)
                finished.append((ref, {"status": LOST, "error": why}))
        return finished

    def _gone(self, one: _Running) -> str:
        """Why an attempt is taken for lost, of which Ray says nothing; or an empty text.

        Ray waits for a worker on a dead node for as long as there is a connection to it, and does
        not notice a worker that is frozen.
        """
        if one.life is None:
            with contextlib.suppress(OSError, ValueError):
                one.node, _ = (one.claimed.folder / NODE).read_text().split(maxsplit=1)
                one.life = TrialActivity(one.claimed.folder, self.settings.silence + GRACE)
            return ""
        if one.node in self._dead:
            return "its node was lost"
        return "" if one.life.is_active() else "its node does not answer"

    def _end(self, one: _Running, result: dict[str, Any]) -> FinishedJob | None:
        """The outcome of an attempt; None if there will be another."""
        lost = result["status"] in (LOST, TAKEN)
        if lost and one.number <= self.settings.retries:
            self.events.say(f"{one.job.name}: {result['error']}; it continues elsewhere")
            self.waiting.appendleft((one.job, one.number + 1))
            return None
        release(one.claimed, one.job.folder)
        if result["status"] == UNFIT:
            raise StrawberryError(result["error"])
        if lost:
            text = f"lost {one.number} times; the last time {result['error']}"
            result = {"status": LOST, "error": text}
        return FinishedJob(one.job, result)

    def _look_around(self) -> None:
        """See, now and then, how many trials may run: nodes come and go.

        Raises StrawberryError where there was room for none for as long as a trial may be silent.
        """
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        nodes = cluster.nodes()
        self._dead = nodes.dead
        room = cluster.places(nodes.alive, self.settings.cpus, self.settings.gpus)
        self._room = room if self.settings.jobs is None else min(room, self.settings.jobs)
        if self._room or self.running:
            self._had_room = now
        elif now - self._had_room > self.settings.silence:
            raise StrawberryError("no node is left in the cluster that could run a trial")

    def _stop(self) -> None:
        """Ask all to save and stop, wait for them, and give the folders their names again."""
        for ref in self.running:
            ray.cancel(ref)
        if self.running:
            _wait(list(self.running), GRACE)
        for one in self.running.values():
            with contextlib.suppress(OSError):  # the next claim finds it by any name
                release(one.claimed, one.job.folder)


def _wait(refs: list[Any], seconds: float) -> tuple[list[Any], list[Any]]:
    """Those that have ended, and the others, once all have or the time is over.

    An exception of a signal handler comes out of Ray as the cause of a SystemError.
    """
    try:
        ready, rest = ray.wait(refs, num_returns=len(refs), timeout=seconds)
    except SystemError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
    return ready, rest


def _result(ref: Any) -> dict[str, Any]:
    """Ray's report on an attempt that has ended."""
    try:
        result: dict[str, Any] = ray.get(ref)
    except exceptions.OutOfMemoryError:
        text = "ended by Ray's memory monitor: its node was short of memory"
        return {"status": "out of memory", "error": text}
    except exceptions.RayTaskError as error:
        text = str(error).rstrip().rpartition("\n")[2]
        return {"status": UNFIT, "error": f"a node can't run trials: {text}"}
    except exceptions.RayError as error:
        return {"status": LOST, "error": _why(error)}
    return result


def _why(error: Exception) -> str:
    """A node or a worker that is gone, in few words."""
    if isinstance(error, exceptions.NodeDiedError):
        return "its node was lost"
    return f"it was lost ({type(error).__name__})"
