"""The process that measures: it reads jobs from standard input, and prints each result in a line.

A process of its own, since what breaks on an accelerator often takes its process along. Lines are
JSON; the driver in driver.py reads them, and begins another worker where one has died.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
POISONED: Final = ("CUDA error", "illegal memory access", "device-side assert", "CUDNN_STATUS")
"""Errors after which nothing more can be done in this process."""


class Speaker:
    """Says things to the driver; all else that is printed goes to the log."""

    def __init__(self) -> None:
        self.out: IO[str] = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, what: str, **more: Any) -> None:
        """One line."""
        self.out.write(json.dumps({"what": what, **more}, default=str) + "\n")
        self.out.flush()


def main(job: Mapping[str, Any]) -> int:
    """Take the measurements of the job; the exit code is 3 if the process can't continue."""
    from bench import PARTS, Bench

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    speaker = Speaker()
    bench = Bench(job["device"], job["quick"], job["nanogpt"], Path(job["folder"]))
    waiting = {part: PARTS[part][1] for part in job["parts"]}
    with contextlib.ExitStack() as stack:
        if job["device"] == "pretend":
            from strawberry.check.pretend import accelerator

            stack.enter_context(accelerator())
        for part in job["parts"]:
            share = waiting[part] / sum(waiting.values())
            deadline = time.time() + share * (job["end"] - time.time())
            del waiting[part]
            if not _part(speaker, bench, part, deadline, job):
                return 3
    return 0


def _part(speaker: Speaker, bench: Any, part: str, deadline: float, job: Mapping[str, Any]) -> bool:
    """The measurements of one part; False if the process is of no more use."""
    speaker.say("part", part=part, deadline=deadline)
    try:
        every = dict(importlib.import_module(f"parts.{part}").measurements(bench))
    except Exception as error:
        speaker.say("failed", part=part, name="all of it", seconds=0.0, **_told(error))
        return True
    for name in list(every):
        unwanted = job["only"] and not any(wanted in name for wanted in job["only"])
        if unwanted or f"{part}/{name}" in job["known"]:
            del every[name]
    speaker.say("names", part=part, names=list(every))
    for name, run in every.items():
        if time.time() > deadline:
            speaker.say("left", part=part, name=name)
            continue
        speaker.say("begin", part=part, name=name)
        began = time.perf_counter()
        try:
            row, failed = run(), None
        except Exception as error:
            row, failed = getattr(error, "row", {}), error
        seconds = round(time.perf_counter() - began, 2)
        if failed is None:
            speaker.say("done", part=part, name=name, seconds=seconds, row=row)
        elif type(failed).__name__ == "Skip":
            speaker.say("skipped", part=part, name=name, seconds=seconds, error=str(failed))
        else:
            speaker.say("failed", part=part, name=name, seconds=seconds, row=row, **_told(failed))
            if any(sign in str(failed) for sign in POISONED):
                return False
        del failed  # which holds all that there was where it was raised
        _tidy()
    return True


def _end_with(parent: int) -> None:
    """End this process when the driver is killed: nobody hears it, and the card is wanted."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _tidy() -> None:
    """Let the next measurement have all of the memory, and nothing that was compiled."""
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    compiler = sys.modules.get("torch._dynamo")
    if compiler is not None:
        compiler.reset()


def _told(error: Exception) -> dict[str, str]:
    """The text of an error, and the innermost line of this project."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(ROOT)) and ".venv" not in f.filename]
    last = (ours or frames)[-1:]
    place = "".join(f"{f.filename.removeprefix(f'{ROOT}/')}:{f.lineno}" for f in last)
    lines = str(error).strip().splitlines() or [""]
    return {"error": f"{type(error).__name__}: {lines[0]}"[:500], "place": place}


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent / "bench"), str(ROOT)]
    sys.exit(main(json.load(sys.stdin)))
