"""Checkpoints: a folder that is either whole and verified, or not there.

    checkpoints/step-00000250/
        model.safetensors  optimizer.safetensors  random.safetensors  state.json
        manifest.json      SHA-256 and size of each of the others

It is written under a temporary name, every file and the folder are flushed to disk, then it is
renamed. Nothing in it is ever unpickled. A damaged one is found by its hashes before it is used,
and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from strawberry.errors import StrawberryError

PARTS = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json")
TEMPORARY = ".writing-"


class DamagedError(Exception):
    """A checkpoint is not what its manifest says."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds."""

    path: Path
    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    random: dict[str, torch.Tensor]
    state: dict[str, Any]


def save(
    folder: Path,
    *,
    step: int,
    model: dict[str, torch.Tensor],
    optimizer: dict[str, torch.Tensor],
    random: dict[str, torch.Tensor],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of `step` into `folder` and drop all but the newest `keep`.

    Raises StrawberryError if the disk refuses; the checkpoints that were there stay.
    """
    target = folder / f"step-{step:08d}"
    temporary, replaced = (folder / f"{TEMPORARY}{target.name}{end}" for end in ("", "-old"))
    try:
        folder.mkdir(exist_ok=True)  # and no parents: a run folder that was moved stays away
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, tensors in zip(PARTS, (model, optimizer, random), strict=False):
            save_file({k: _portable(t) for k, t in tensors.items()}, temporary / name)
        (temporary / PARTS[3]).write_text(json.dumps(state))
        manifest = {name: _digest(temporary / name) for name in PARTS}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        if target.exists():  # a step that was reached again after a resume
            target.rename(replaced)
        temporary.rename(target)
        _flush(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StrawberryError(f"{target}: the checkpoint can't be written: {error}") from error
    steps = _steps(folder)
    # Later steps than this one are damaged ones that the run went back behind.
    here = steps.index(target)
    for old in (replaced, *steps[: max(0, here + 1 - keep)], *steps[here + 1 :]):
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest(folder: Path) -> Iterator[Path]:
    """The checkpoints in `folder`, newest first; what was left half-written is removed."""
    for orphan in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(orphan, ignore_errors=True)
    yield from reversed(_steps(folder))


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint; raises DamagedError."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        for name in PARTS:
            if _digest(path / name) != manifest[name]:
                raise DamagedError(f"{path / name} is not what was written")
        model, optimizer, random = (load_file(path / name) for name in PARTS[:3])
        state = json.loads((path / PARTS[3]).read_text())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedError(f"{path}: {error}") from error
    return Checkpoint(path, model, optimizer, random, state)


def load_newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint, and a line for each damaged one that was passed over.

    Raises StrawberryError if there is none.
    """
    passed: list[str] = []
    for path in newest(folder):
        try:
            return load(path), passed
        except DamagedError as error:
            passed.append(f"damaged checkpoint passed over: {error}")
    raise StrawberryError("\n".join([*passed, f"{folder}: there is no whole checkpoint"]))


def _steps(folder: Path) -> list[Path]:
    """The folders of checkpoints, by step."""
    found = {path.name.removeprefix("step-"): path for path in folder.glob("step-*")}
    return [found[step] for step in sorted(filter(str.isdecimal, found), key=int)]


def _portable(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, contiguous, and with storage of its own."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _digest(path: Path) -> list[Any]:
    with path.open("rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
