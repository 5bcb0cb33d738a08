"""Start, watch and stop the worker process of a trial.

The worker exits at most `GRACE` seconds after its parent.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType
from typing import Any

from strawberry.ablate.waiting import Say, silent, wait_for
from strawberry.ablate.worker import GRACE, child


def write_request(folder: Path, request: Mapping[str, Any], say: Say = silent) -> None:
    """Write a trial's request to `folder/trial.json`, and create the folder.

    Waits for the parent folder, which may be on a disk that is not mounted for a while.

    Raises FolderMissing if the parent folder doesn't come back.
    """
    wait_for(folder.parent, say)
    folder.mkdir(exist_ok=True)
    (folder / "trial.json").write_text(json.dumps(dict(request)))


class TrialProcess:
    """A worker for the request in `folder/trial.json`; its output goes to `log.txt`.

    Args:
        folder: the trial's folder.
        environment: additional environment variables of the worker.
        timeout: seconds without a logged step, evaluation or checkpoint after which the worker
            counts as hung, and is killed.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], timeout: float) -> None:
        self.folder = folder
        (folder / "result.json").unlink(missing_ok=True)
        with _without_main():
            self._process = _context().Process(
                target=child, args=(str(folder), dict(environment))
            )  # fmt: skip
            self._process.start()
        self._activity = TrialActivity(
            folder, timeout
        )  # not before: the first one waits for all imports

    def poll(self) -> dict[str, Any] | None:
        """The trial's outcome, or None while it runs; kills a worker without progress."""
        code = self._process.exitcode
        if code is not None:
            self._process.join()
            return outcome(self.folder, code)
        if self._activity.is_active():
            return None
        self.kill()
        text = f"no progress for {self._activity.timeout:g} s"
        return {"status": "silent", "error": text}

    def kill(self) -> None:
        """Kill the worker at once."""
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        """Ask the worker to save and stop, with SIGTERM."""
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait until the worker has ended; kill it after this time."""
        self._process.join(max(0.1, seconds))
        if self._process.exitcode is None:
            self.kill()


def stop(processes: Sequence[TrialProcess]) -> None:
    """Ask all workers to save and stop, and wait for them."""
    for one in processes:
        one.terminate()
    deadline = time.monotonic() + GRACE
    for one in processes:
        one.wait(deadline - time.monotonic())


class TrialActivity:
    """Detects progress in a trial's folder.

    A file's changed timestamp is progress, whatever it says; the time since then is measured with
    this process's clock, because the clocks of machines differ.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self.timeout = timeout
        run = folder / "run"
        self._paths = (run / "metrics.jsonl", run / "checkpoints", run)
        self._seen = self._times()
        self._changed_at = time.monotonic()

    def is_active(self) -> bool:
        """Return whether the last change is at most `timeout` ago."""
        seen = self._times()
        if seen != self._seen:
            self._seen, self._changed_at = seen, time.monotonic()
        return time.monotonic() - self._changed_at < self.timeout

    def _times(self) -> list[int]:
        times = []
        for path in self._paths:
            with contextlib.suppress(OSError):
                times.append(path.stat().st_mtime_ns)
        return times


def outcome(folder: Path, code: int) -> dict[str, Any]:
    """The worker's result file, or what its exit code says."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        if code < 0:
            name = _signal_name(-code)
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return {"status": "killed", "error": f"killed by {name}{hint}"}
        return {"status": "failed", "error": f"exit code {code}; see {folder / 'log.txt'}"}
    return result


def _signal_name(number: int) -> str:
    """`SIGKILL`, or `signal 40`: the enumeration names only the ends of the real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _context() -> Any:
    """The multiprocessing context of workers.

    Where the system supports it, workers are forked from a process that has imported everything.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["strawberry.ablate.preload"])
    return context


def warm_up() -> None:
    """Start the process that forks trials; returns while it is still importing."""
    if _context().get_start_method() == "forkserver":
        with _without_main():
            forkserver.ensure_running()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide this process's main module, which every child would import."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
