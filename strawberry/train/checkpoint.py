"""Checkpoints: a folder that is either whole and verified, or not there.

    checkpoints/step-00000250/
        model.safetensors  optimizer.safetensors  random.safetensors  state.json
        manifest.json      SHA-256 and size of each of the others

It is written under a temporary name, every file and the folder are flushed to disk, then it is
renamed. Nothing in it is ever unpickled. A damaged one is found by its hashes before it is used,
and the one before it is taken. What the disk refuses for a moment is tried again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from strawberry.errors import StrawberryError
from strawberry.train.retry import retried

FORMAT = 1
"""Version of the form of a checkpoint; another one is refused by name."""

PARTS = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json")
TEMPORARY = ".writing-"
OLD = "-old"


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
    best: int | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the checkpoint of `step` into `folder`; drop all but the newest `keep` and `best`.

    `warn` is told of an old one that can't be removed. Raises StrawberryError if the disk refuses
    the new one; the checkpoints that were there stay.
    """
    target = _path(folder, step)
    temporary, replaced = (folder / f"{TEMPORARY}{target.name}{end}" for end in ("", OLD))
    content = (model, optimizer, random)

    def write() -> None:
        folder.mkdir(exist_ok=True)  # and no parents: a run folder that was moved stays away
        _tidy(folder)
        temporary.mkdir()
        for name, tensors in zip(PARTS, content, strict=False):
            save_file({k: _portable(t) for k, t in tensors.items()}, temporary / name)
        (temporary / PARTS[3]).write_text(json.dumps({"format": FORMAT, **state}))
        manifest = {name: _digest(temporary / name) for name in PARTS}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        if target.exists():  # a step that was reached again after a resume
            target.rename(replaced)
        temporary.rename(target)
        _flush(folder)

    try:
        retried(write)
    except (OSError, RuntimeError, SafetensorError) as error:
        _tidy(folder)
        raise StrawberryError(f"{target}: the checkpoint can't be written: {error}") from error
    steps = _steps(folder)
    # Later steps than this one are damaged ones that the run went back behind.
    here = steps.index(target)
    gone = [replaced, *steps[: max(0, here + 1 - keep)], *steps[here + 1 :]]
    for old in gone:
        if best is None or old != _path(folder, best):
            _remove(old, warn)
    return target


def newest(folder: Path) -> Iterator[Path]:
    """The checkpoints in `folder`, newest first; what was left half-written is removed."""
    _tidy(folder)
    yield from reversed(_steps(folder))


def _tidy(folder: Path) -> None:
    """Remove what a killed writer left; what it had moved away for a new one comes back."""
    for orphan in folder.glob(f"{TEMPORARY}*"):
        target = folder / orphan.name.removeprefix(TEMPORARY).removesuffix(OLD)
        if orphan.name.endswith(OLD) and not target.exists():
            orphan.rename(target)
        else:
            shutil.rmtree(orphan, ignore_errors=True)


def _remove(path: Path, warn: Callable[[str], None]) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        warn(f"{path}: the old checkpoint can't be removed: {error.strerror or error}")


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint.

    Raises DamagedError, and StrawberryError if another version of Strawberry wrote it.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        for name in PARTS:
            if _digest(path / name) != manifest[name]:
                raise DamagedError(f"{path / name} is not what was written")
        model, optimizer, random = (load_file(path / name) for name in PARTS[:3])
        state = json.loads((path / PARTS[3]).read_text())
        found = state.get("format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise DamagedError(f"{path}: {error}") from error
    if found != FORMAT:
        raise StrawberryError(
            f"{path}: has format {found}; this Strawberry reads {FORMAT}. Use the version that "
            f"wrote it, which run.json names"
        )
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


def load_best(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The checkpoint of the lowest val_loss, and the warnings of `load_newest`.

    Raises StrawberryError if none was kept, or if it is damaged.
    """
    last, passed = load_newest(folder)
    best = last.state.get("best")
    if best is None:
        raise StrawberryError(f"{folder}: no best checkpoint was kept; train.keep_best does that")
    try:
        return load(_path(folder, best["step"])), passed
    except DamagedError as error:
        raise StrawberryError(f"the best checkpoint is damaged: {error}") from error


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


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
