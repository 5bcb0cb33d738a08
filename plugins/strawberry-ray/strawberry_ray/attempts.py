"""Attempts at a trial: who may write into its folder, when nobody knows who is still alive.

While a trial runs, its folder is called `FOLDER.attempt-TOKEN`; before and after it is `FOLDER`.
The next attempt first renames it, so the paths of an attempt that was believed dead lead nowhere.
NFS lets a client use an old name while its attribute cache is valid, a minute at most by default.
The token is therefore in `trial.json` too, and is read again before a result is written.
"""

from __future__ import annotations

import contextlib
import glob
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strawberry.ablate import wait_for
from strawberry.contracts import FINISHED
from strawberry.files import write_atomic

NODE = "node"
"""The file in which an attempt's node says its id and its name, once it has begun."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that is ours: its `folder` by the name that it has now, and its `request`.

    `result` is its result, if it has already run to its end.
    """

    folder: Path
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None = None


def claim(folder: Path, request: Mapping[str, Any], number: int) -> Claim:
    """Take a trial for a new attempt, from whoever had it.

    Args:
        folder: the trial's own folder, which need not exist.
        request: the request to the worker; a token and the number are added.
        number: how many attempts this one makes.

    Raises FolderMissing if the folder around it is missing and doesn't come back.
    """
    token = uuid.uuid4().hex[:12]
    mine = folder.with_name(f"{folder.name}.attempt-{token}")
    wait_for(folder.parent)
    for standing in sorted(_all(folder), key=_advance, reverse=True):
        if mine.exists():
            shutil.rmtree(standing, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                standing.rename(mine)
    mine.mkdir(exist_ok=True)
    if (result := result_of(mine, request)) is not None:
        return Claim(mine, request, result)
    # A lock that a lost node holds may be held for ever: the new name is what keeps it out.
    for path in ("result.json", NODE, "run/.lock", "run/.holder"):
        (mine / path).unlink(missing_ok=True)
    told = {**request, "attempt": token, "attempts": number}
    write_atomic(mine / "trial.json", json.dumps(told))
    return Claim(mine, told)


def release(claimed: Claim, folder: Path) -> None:
    """Give a folder that was claimed its own name again."""
    claimed.folder.rename(folder)


def result_of(folder: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The existing result of the requested trial, if it ran to its end."""
    try:
        asked = json.loads((folder / "trial.json").read_text())
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None
    same = asked.get("key") == request.get("key")
    return result if same and result.get("status") == FINISHED else None


def _all(folder: Path) -> Iterator[Path]:
    """The folder of a trial, by whatever name; several where a late writer made one again."""
    if folder.exists():
        yield folder
    yield from folder.parent.glob(f"{glob.escape(folder.name)}.attempt-*")


def _advance(folder: Path) -> tuple[bool, int]:
    """The result, if any, and the step of the newest checkpoint."""
    names = [path.name for path in folder.glob("run/checkpoints/step-*")]
    steps = [int(name[5:]) for name in names if name[5:].isdecimal()]
    return (folder / "result.json").exists(), max(steps, default=-1)
