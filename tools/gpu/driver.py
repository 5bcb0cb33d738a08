"""Lets workers measure, holds them to their time, and keeps on disk what they have said."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import PARTS
from table import table

HERE: Final = Path(__file__).resolve().parent
GRACE: Final = 5.0
"""Seconds that a measurement may exceed its part's time."""
LEAST: Final = 30.0
"""Seconds that it has in any case, as long as there is time at all."""
STARTING: Final = 90.0
"""Seconds in which a worker has to begin, torch's import among them."""
ENDING: Final = 10.0
"""Seconds of the whole time that are kept for the last measurement to end in."""


@dataclass
class Job:
    """The measurements to take.

    Attributes:
        out: the folder of `results.json`, `table.md` and the workers' `log.txt`.
        device: of torch.
        quick: small and few.
        minutes: for all of it.
        parts: their names, in order.
        nanogpt: where nanoGPT is, if anywhere.
        environment: additional environment variables of workers.
        only: measurements whose names have one of these in them; None for all.
    """

    out: Path
    device: str
    quick: bool
    minutes: float
    parts: Sequence[str]
    nanogpt: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    only: Sequence[str] | None = None


class Results:
    """The results so far; every change is on disk before the next."""

    def __init__(self, job: Job) -> None:
        self.out = job.out
        self.began = time.time()
        self.found: dict[str, Any] = {
            "began": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "device": job.device,
            "quick": job.quick,
            "minutes": job.minutes,
            "finished": False,
            "parts": {part: {"title": PARTS[part][0], "rows": {}} for part in job.parts},
        }

    def put(self, part: str, name: str, status: str, **more: Any) -> None:
        """Note how a measurement stands."""
        self.found["parts"][part]["rows"][name] = {"status": status, **more}
        self.write()

    def write(self) -> None:
        """Replace the files, each in one step."""
        self.found["seconds"] = round(time.time() - self.began, 1)
        text = json.dumps(self.found, indent=1)
        for name, content in (("results.json", text), ("table.md", table(self.found))):
            temporary = self.out / f".{name}"
            temporary.write_text(content + "\n")
            temporary.replace(self.out / name)

    def known(self) -> list[str]:
        """Measurements that are not to be taken again."""
        return [
            f"{name}/{one}"
            for name, part in self.found["parts"].items()
            for one, row in part["rows"].items()
            if row["status"] != "left"
        ]

    def left(self) -> list[str]:
        """Parts for which there was no time."""
        parts = self.found["parts"].items()
        return [
            name
            for name, part in parts
            if any(r["status"] == "left" for r in part["rows"].values())
        ]

    def statuses(self) -> list[str]:
        """The state of each measurement."""
        return [
            row["status"] for part in self.found["parts"].values() for row in part["rows"].values()
        ]


def drive(job: Job) -> Results:
    """Take all measurements within the time; returns what was found, which is on disk too."""
    job.out.mkdir(parents=True, exist_ok=True)
    results = Results(job)
    results.write()
    end = results.began + 60 * job.minutes - min(ENDING, 6 * job.minutes)
    parts = list(job.parts)
    with tempfile.TemporaryDirectory() as folder, (job.out / "log.txt").open("w") as log:
        while parts and time.time() < end:
            request = {
                "device": job.device, "quick": job.quick, "nanogpt": job.nanogpt, "end": end,
                "folder": folder, "parts": parts, "known": results.known(), "only": job.only,
            }  # fmt: skip
            parts = parts[parts.index(_one(request, job, results, log, end)) :]
            if parts and results.found["parts"][parts[0]].pop("over", False):
                parts = parts[1:]
            parts = parts or results.left()  # what others left over goes to those
    results.found["finished"] = True
    results.write()
    return results


@dataclass
class _At:
    """The current measurement of a worker, and its start.

    Attributes:
        part: that it is at.
        running: the measurement that it takes; empty in between.
        since: when it last said something.
        deadline: when the part's time is over; None before the worker has begun.
        whole: seconds of the part.
        names: the part's measurements.
    """

    part: str
    running: str = ""
    since: float = field(default_factory=time.time)
    deadline: float | None = None
    whole: float = 0.0
    names: list[str] = field(default_factory=list)

    def until(self, end: float) -> float:
        """Time of its end: a measurement may take half of its part's time, or `LEAST`."""
        if self.deadline is None:
            return min(self.since + STARTING, end + GRACE)
        own = self.since + max(LEAST, self.whole / 2)
        return min(own, max(self.deadline + GRACE, self.since + LEAST), end + GRACE)

    def hear(self, said: dict[str, Any], results: Results) -> None:
        """Take in a line of the worker."""
        what, self.part, self.since = said.pop("what"), said.pop("part"), time.time()
        if what == "part":
            self.deadline, self.running, self.names = said["deadline"], "", []
            self.whole = said["deadline"] - self.since
        elif what == "names":
            self.names = said["names"]
        elif what == "begin":
            self.running = said["name"]
            results.put(self.part, self.running, "running")
        else:
            results.put(self.part, said.pop("name"), what, **said)
            self.running = ""

    def over(self, results: Results) -> None:
        """Note that the part's time is over, and what there was none for."""
        part = results.found["parts"][self.part]
        part["over"] = True
        for name in self.names:
            part["rows"].setdefault(name, {"status": "left"})


def _one(request: dict[str, Any], job: Job, results: Results, log: Any, end: float) -> str:
    """Let one worker measure until it ends or has to; returns the part that it was at."""
    worker = subprocess.Popen(
        [sys.executable, str(HERE / "worker.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        env={**os.environ, **job.environment}, start_new_session=True,
    )  # fmt: skip
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError), worker.stdin as pipe:
        pipe.write(json.dumps(request))
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(worker, lines), daemon=True)
    reader.start()
    at, patience = _At(request["parts"][0]), 0.0
    try:
        while (line := lines.get(timeout=max(0.1, at.until(end) - time.time()))) is not None:
            at.hear(json.loads(line), results)
        patience = 20.0
    except queue.Empty:
        note = f"cut after {time.time() - at.since:.0f} s"
        if not at.running or at.deadline is None or time.time() >= at.deadline:
            at.over(results)
            note += ", when the time of this part was over"
        results.put(at.part, at.running or "all of it", "cut", error=note)
        return at.part
    finally:
        _end(worker, patience)
        reader.join(GRACE)
    _ended(worker.returncode, at, results)
    return at.part


def _ended(code: int, at: _At, results: Results) -> None:
    """Note how a worker has ended by itself."""
    if code == 0 and not at.running:
        at.over(results)
    elif code != 3 or at.running:  # 3: it asks for another one
        error = f"the process died with exit code {code}; see log.txt"
        name = at.running or f"start {len(results.known())}"
        results.put(at.part, name, "failed", error=error)
        if not at.running:  # it can't even begin
            at.over(results)


def _read(worker: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert worker.stdout is not None
    with worker.stdout as pipe:
        for line in pipe:
            lines.put(line)
    lines.put(None)


def _end(worker: subprocess.Popen[str], patience: float) -> None:
    """End the worker, and what it has begun; one that is done may leave in order."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(patience)
    if worker.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, 9)
        worker.wait()
