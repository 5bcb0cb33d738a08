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


def ask(folder: Path, request: Mapping[str, Any], say: Say = silent) -> None:
    """Create a trial's folder with the request in it; waits for the parent folder.

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
        silence: seconds without a logged step, evaluation or checkpoint after which it counts as
            hung.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], silence: float) -> None:
        self.folder = folder
        (folder / "result.json").unlink(missing_ok=True)
        with _without_main():
            self._process = _context().Process(
                target=child, args=(str(folder), dict(environment))
            )  # fmt: skip
            self._process.start()
        self._life = TrialActivity(
            folder, silence
        )  # not before: the first one waits for all imports

    def look(self) -> dict[str, Any] | None:
        """The trial's outcome, or None while it runs; kills a worker that is silent too long."""
        code = self._process.exitcode
        if code is not None:
            self._process.join()
            return outcome(self.folder, code)
        if self._life.goes_on():
            return None
        self.kill()
        text = f"no progress for {self._life.silence:g} s"
        return {"status": "silent", "error": text}

    def kill(self) -> None:
        """Kill it at once."""
        self._process.kill()
        self._process.join()

    def ask_to_stop(self) -> None:
        """Ask it to save and stop."""
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended; kill it after this timeout."""
        self._process.join(max(0.1, seconds))
        if self._process.exitcode is None:
            self.kill()


def stop(processes: Sequence[TrialProcess]) -> None:
    """Ask all workers to save and stop, and wait for them."""
    for one in processes:
        one.ask_to_stop()
    deadline = time.monotonic() + GRACE
    for one in processes:
        one.wait(deadline - time.monotonic())


class TrialActivity:
    """Detects progress in a trial's folder.

    Any change counts, not its timestamp, because machines' clocks differ.
    """

    def __init__(self, folder: Path, silence: float) -> None:
        self.silence = silence
        run = folder / "run"
        self._paths = (run / "metrics.jsonl", run / "checkpoints", run)
        self._seen = self._times()
        self._heard = time.monotonic()

    def goes_on(self) -> bool:
        """Return whether the last change is at most `silence` ago."""
        seen = self._times()
        if seen != self._seen:
            self._seen, self._heard = seen, time.monotonic()
        return time.monotonic() - self._heard < self.silence

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
    """A process that has imported everything and forks workers, where the system supports it."""
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
