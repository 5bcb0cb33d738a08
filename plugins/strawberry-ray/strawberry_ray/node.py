"""The task on a node: one attempt at a trial, in its own process, watched by Ray's."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from strawberry.ablate import TrialProcess, holds, outcome, stop
from strawberry_ray.attempts import NODE

UNFIT = "unfit"
"""The node can't run any trial; `error` says why."""
TAKEN = "taken"
"""Somebody else has the trial by now."""

POLL = 0.05
"""Seconds between two looks at the process."""
CHECK = 1.0
"""Seconds between two looks at whose the trial is."""
VISIBLE = 10.0
"""Seconds in which a file that one node wrote has to be seen by another."""


def attempt(
    folder: str, request: Mapping[str, Any], silence: float, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Run a trial in the folder that was claimed for it, and return its result.

    When Ray cancels the task, which raises KeyboardInterrupt here, the trial saves and stops.

    Args:
        folder: the claimed folder; all nodes must see it.
        request: what its `trial.json` holds.
        silence: seconds after which it counts as hanging.
        versions: of distributions, which must be the same here.
    """
    here = Path(folder)
    if (why := _unfit(here, request, versions)) is not None:
        return {"status": UNFIT, "error": f"node {socket.gethostname()}: {why}"}
    environment = {"OMP_NUM_THREADS": str(request["threads"])}
    environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not request["gpus"]:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        name = ray.get_runtime_context().get_node_id()
        (here / NODE).write_text(f"{name} {socket.gethostname()}, process {os.getpid()}")
        process = TrialProcess(here, environment, silence)
    except OSError as error:
        return {"status": "failed", "error": str(error)}
    try:
        return _watched(process, here, request)
    except KeyboardInterrupt:
        stop([process])
        return outcome(here, 1)


def _watched(process: TrialProcess, here: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """The result, once it is there; what somebody else has taken over meanwhile is killed."""
    checked = time.monotonic()
    while (result := process.poll()) is None:
        time.sleep(POLL)
        if time.monotonic() - checked > CHECK:
            checked = time.monotonic()
            with contextlib.suppress(OSError):  # a disk that is away comes back, or the trial fails
                if not holds(here, request):
                    process.kill()
                    return {"status": TAKEN, "error": "another attempt has this trial"}
    return result


def installed() -> dict[str, str]:
    """The versions on which a trial's numbers depend."""
    return {name: importlib.metadata.version(name) for name in ("strawberry-lab", "torch")}


def _unfit(here: Path, request: Mapping[str, Any], versions: Mapping[str, str]) -> str | None:
    """Why no trial can be run here, or None."""
    for name, version in installed().items():
        if version != versions[name]:
            return f"has {name} {version}, and not {versions[name]}"
    deadline = time.monotonic() + VISIBLE
    while not _sees(here, request):
        if time.monotonic() > deadline:
            return (f"does not see {here}; --out must name a folder on a disk "
                    "that all nodes share, by the same path")  # fmt: skip
        time.sleep(POLL)
    return None


def _sees(here: Path, request: Mapping[str, Any]) -> bool:
    with contextlib.suppress(OSError, json.JSONDecodeError):
        return holds(here, request)
    return False
