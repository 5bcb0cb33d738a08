"""A trial in its own process: `python -m strawberry.ablate.worker FOLDER`.

Every outcome is written to `result.json`, unless the process is killed.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strawberry.ablate.waiting import PATIENCE, FolderMissing, wait_for
from strawberry.contracts.execution import DISQUALIFIED, FINISHED, STOPPED
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.stopping import PATIENT

if TYPE_CHECKING:
    from strawberry.plugin import Plugins
    from strawberry.recipe.spec import Recipe

GRACE = 120
"""Seconds that a stopped trial has to save."""
TICK = 5.0
"""Seconds between records of a trial's duration."""


def child(folder: str, environment: Mapping[str, str]) -> None:
    """Run the trial of a folder in this forked process, which ends with its parent.

    Output goes to the folder's `log.txt`. A Ctrl-C reaches only the parent.
    """
    os.environ.update(environment)
    for number in PATIENT:  # which the fork server ignores, see preload.py
        signal.signal(number, signal.SIG_DFL)
    if hasattr(os, "setsid"):
        os.setsid()
    with Path(folder, "log.txt").open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_stop_with, args=(parent.join,), daemon=True).start()
    main(Path(folder))


def main(folder: Path) -> None:
    """Run the trial of a folder; the result is a file, and the exit code is 0.

    If the folder has been given to another process meanwhile, as its request shows, nothing is
    written and the exit code is 1.
    """
    request = json.loads((folder / "trial.json").read_text())
    if request.get("cores") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    with _stopwatch(folder / "spent") as spent:
        result = _outcome(folder, request)
    with contextlib.suppress(FolderMissing):  # then `holds` is False
        wait_for(folder.parent)
    if not holds(folder, request):
        sys.exit(f"{folder}: this trial was given to another process; the result is refused")
    result["spent"] = spent()
    write_atomic(folder / "result.json", json.dumps(result, indent=1))


def holds(folder: Path, request: Mapping[str, Any]) -> bool:
    """Return whether a trial's folder exists and still has this request."""
    try:
        written: object = json.loads((folder / "trial.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return written == request


@contextlib.contextmanager
def _stopwatch(path: Path) -> Iterator[Callable[[], float]]:
    """Seconds of this trial, including interrupted parts.

    The duration is recorded every few seconds, because a killed process writes nothing at the end.
    """
    before = float(path.read_text()) if path.exists() else 0.0
    started = time.perf_counter()
    over = threading.Event()

    def spent() -> float:
        return before + time.perf_counter() - started

    def note() -> None:
        while not over.wait(TICK):
            with contextlib.suppress(StrawberryError):  # the folder is away, or another's now
                write_atomic(path, repr(spent()))

    noting = threading.Thread(target=note, daemon=True)
    noting.start()
    try:
        yield spent
    finally:
        over.set()
        noting.join()
        with contextlib.suppress(StrawberryError):
            write_atomic(path, repr(spent()))


def _outcome(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the trial and return its outcome.

    Even SystemExit and KeyboardInterrupt become one, since an executor reads `result.json` alone.
    """
    import torch

    from strawberry.runs.memory import OutOfMemory
    from strawberry.training import Diverged, Interrupted

    try:
        return _run(folder, request)
    except Interrupted as stop:
        return {"status": STOPPED, "error": str(stop), "step": stop.step}
    except Diverged as error:
        return {"status": "diverged", "error": str(error)}
    except (OutOfMemory, torch.OutOfMemoryError, MemoryError) as error:
        return {"status": "out of memory", "error": str(error) or "out of memory"}
    except StrawberryError as error:
        return {"status": "failed", "error": str(error)}
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        return {"status": "failed", "error": text, "traceback": traceback.format_exc()}


def _run(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Train to the end, and wait for temporary obstacles.

    These are a dying process that still holds the folder, and a missing disk.
    """
    import torch

    from strawberry.files.lock import FolderInUse
    from strawberry.plugin import Plugins
    from strawberry.runs.device import machine_for
    from strawberry.runs.folder import RunFolder
    from strawberry.training import train
    from strawberry.training.compiling import keep_compiled
    from strawberry.training.space import peak_memory
    from strawberry.training.uncompiled import spare_compiler

    spare_compiler()
    keep_compiled()
    if request.get("threads"):
        torch.set_num_threads(request["threads"])
    plugins = Plugins.load(
        files=[Path(file) for file in request["plugin_files"]], disabled=request["disabled"]
    )
    recipe, run = read_recipe(request, plugins), folder / "run"
    deadline = time.monotonic() + PATIENCE
    while True:
        started = time.perf_counter()
        try:
            again = RunFolder(run).exists
            done = train(recipe, run, resume=again, **({} if again else _forked(request)))
            break
        except FolderInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        except StrawberryError:
            if folder.parent.is_dir():
                raise
            wait_for(folder.parent)
    verdict = {"status": FINISHED}
    if done.breaches:
        verdict = {"status": DISQUALIFIED, "error": "; ".join(done.breaches)}
    return {
        **verdict,
        "declared": list(RunFolder(run).judgement().get("declared", [])),
        "steps": done.steps,
        "forked_at": RunFolder(run).info().get("fork", {}).get("step", 0),
        "metrics": done.metrics,
        "seconds": time.perf_counter() - started,
        "peak_bytes": peak_memory(machine_for(recipe).device),
    }


def _forked(request: Mapping[str, Any]) -> dict[str, Any]:
    """How the run begins at another run's checkpoint, if the request names one that is intact.

    Without it the run begins at its first step: the result is the same, and the cost is more.
    """
    from strawberry.errors import DamagedCheckpointError
    from strawberry.runs.checkpoint import of_step

    if "fork" not in request:
        return {}
    parent, step = Path(request["fork"]["run"]), int(request["fork"]["step"])
    try:
        of_step(parent / "checkpoints", step)
    except DamagedCheckpointError as error:
        sys.stderr.write(f"starts from step 0: {error}\n")
        return {}
    return {"fork_of": parent, "fork_step": step}


def read_recipe(request: Mapping[str, Any], plugins: Plugins) -> Recipe:
    """The recipe of a request; relative paths are resolved against the original recipe's folder."""
    from strawberry.recipe.origin import read_origin
    from strawberry.recipe.validate import validate
    from strawberry.recipe.yaml import parse

    source = Path(request["source"])
    recipe = validate(parse(request["recipe"], request["source"]), source, plugins)
    origin = request.get("origin")  # older records have none
    return recipe if origin is None else replace(recipe, origin=read_origin(origin))


def _stop_with(wait_for_parent: Callable[[], object]) -> None:
    """Send SIGTERM to this process once `wait_for_parent` returns: the parent is gone.

    The trial saves and stops, since nobody needs its result. An alarm ends one that hangs and can't
    save; nobody is left to kill it.
    """
    wait_for_parent()
    if hasattr(signal, "alarm"):
        signal.alarm(GRACE)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with, args=(sys.stdin.buffer.read,), daemon=True).start()
    main(Path(sys.argv[1]))
