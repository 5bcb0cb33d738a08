"""Checkpoints: a folder that is either whole and verified, or not there.

    checkpoints/step-00000250/
        model.safetensors  optimizer.safetensors  random.safetensors  state.json
        manifest.json      SHA-256 and size of each of the others

Where ranks have the model in shards, a folder `shards/` takes the place of the first two: see
`shards.py`.

It is written under a temporary name, every file and the folder are flushed to disk, then it is
renamed. Nothing in it is unpickled that could run anything. A damaged one is found by its hashes
before it is used, and the one before it is taken. What the disk refuses for a moment is tried
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from strawberry.errors import DamagedCheckpointError, StrawberryError
from strawberry.files.retry import retried

FORMAT = 2
"""Version of the form of a checkpoint; another one is refused by name."""

PARTS = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json")
RANDOM, STATE = PARTS[2:]
MANIFEST = "manifest.json"
SHARDS = "shards"
"""The folder within a checkpoint for what ranks hold in shards."""

TEMPORARY = ".writing-"
OLD = "-old"


@dataclass(frozen=True, slots=True)
class CheckpointData:
    """A run after one of its steps: what a checkpoint holds.

    Attributes:
        model: parameters and buffers by name; of several ranks, whole or this one's shards.
        optimizer: what the optimizers keep, by path.
        random: the states of torch's generators, by rank and device.
        state: all else, as JSON; its `step` is how many steps are done.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    random: dict[str, torch.Tensor]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint(CheckpointData):
    """A moment that was read, and where from."""

    path: Path


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Which checkpoints stay once a new one is whole.

    Attributes:
        newest: how many, the new one among them.
        best: the step of one that stays in any case.
        warn: told of an old one that can't be removed.
    """

    newest: int
    best: int | None = None
    warn: Callable[[str], None] = lambda _: None


def save(folder: Path, moment: CheckpointData, keep: CheckpointPolicy) -> Path:
    """Write a moment's checkpoint into `folder`, and drop those that are not to be kept.

    Raises StrawberryError if the disk refuses the new one; the checkpoints that were there stay.
    """
    target = _path(folder, moment.state["step"])

    def write() -> None:
        temporary = _begun(target, moment)
        for name, tensors in zip(PARTS, (moment.model, moment.optimizer), strict=False):
            save_file({k: _portable(t) for k, t in tensors.items()}, temporary / name)
        _finish(temporary, target, {})

    with _told(target):
        retried(write)
    _drop_old(target, keep)
    return target


def begin(folder: Path, moment: CheckpointData) -> Path:
    """A folder to write a moment's tensors in, with the rest in it; raises as `save` does."""
    target = _path(folder, moment.state["step"])
    with _told(target):
        return retried(lambda: _begun(target, moment))


def seal(
    temporary: Path, keep: CheckpointPolicy, known: Mapping[str, list[Any]] | None = None
) -> Path:
    """Give what `begin` began its manifest and its name; drop those that are not to be kept.

    `known` has the digests of files that need not be read again. Raises StrawberryError as `save`.
    """
    target = temporary.with_name(temporary.name.removeprefix(TEMPORARY))
    with _told(target):
        retried(lambda: _finish(temporary, target, known or {}))
    _drop_old(target, keep)
    return target


def _begun(target: Path, moment: CheckpointData) -> Path:
    """The temporary folder of a checkpoint, with its generators and its state alone."""
    folder = target.parent
    folder.mkdir(exist_ok=True)  # and no parents: a run folder that was moved stays away
    tidy(folder)
    temporary = folder / f"{TEMPORARY}{target.name}"
    temporary.mkdir()
    save_file({k: _portable(t) for k, t in moment.random.items()}, temporary / RANDOM)
    (temporary / STATE).write_text(json.dumps({"format": FORMAT, **moment.state}))
    return temporary


def _finish(temporary: Path, target: Path, known: Mapping[str, list[Any]]) -> None:
    """Manifest and name; it can be tried again wherever it stopped."""
    if temporary.exists():
        manifest = temporary / MANIFEST
        files = [p for p in sorted(temporary.rglob("*")) if p.is_file() and p != manifest]
        names = {file: file.relative_to(temporary).as_posix() for file in files}
        digests = {name: known.get(name) or digest(file) for file, name in names.items()}
        manifest.write_text(json.dumps(digests, indent=1))
        for path in (*files, manifest, *sorted({file.parent for file in files})):
            _flush(path)
        if target.exists():  # a step that was reached again after a resume
            target.rename(_replaced(target))
        temporary.rename(target)
    _flush(target.parent)


def _drop_old(target: Path, keep: CheckpointPolicy) -> None:
    """Remove what is no longer to be kept, now that `target` is whole."""
    folder = target.parent
    steps = _steps(folder)
    if target not in steps:
        return  # the folder was moved away meanwhile, which whoever writes next is told
    # Later steps than this one are damaged ones that the run went back behind.
    here = steps.index(target)
    gone = [_replaced(target), *steps[: max(0, here + 1 - keep.newest)], *steps[here + 1 :]]
    for old in gone:
        if keep.best is None or old != _path(folder, keep.best):
            _remove(old, keep.warn)


def _replaced(target: Path) -> Path:
    """Where a checkpoint waits while another one takes its name."""
    return target.parent / f"{TEMPORARY}{target.name}{OLD}"


@contextlib.contextmanager
def _told(target: Path) -> Iterator[None]:
    """Raise StrawberryError for what the disk refuses; what was there comes back."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        tidy(target.parent)
        raise StrawberryError(f"{target}: the checkpoint can't be written: {error}") from error


def newest(folder: Path) -> Iterator[Path]:
    """The checkpoints in `folder`, newest first."""
    yield from reversed(_steps(folder))


def tidy(folder: Path) -> None:
    """Remove what a killed writer left; what it had moved away for a new one comes back.

    For the holder of the run alone, and while it writes nothing.
    """
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


def verify(path: Path) -> frozenset[str]:
    """Names of the files of a checkpoint, each of which is what its manifest says.

    They are ours by name, and those within `shards/`; what else a manifest names is not looked at.
    Raises DamagedCheckpointError.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        shards = [n for n in manifest if n.startswith(f"{SHARDS}/") and n.count("/") == 1]
        names = [RANDOM, STATE, *shards] if shards else PARTS
        for name in names:
            if digest(path / name) != manifest[name]:
                raise DamagedCheckpointError(f"{path / name} is not what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path}: {error}") from error
    return frozenset(names)


def load(path: Path) -> Checkpoint:
    """Verify and read one checkpoint, whole; raises as `read` does."""
    return read(path, verify(path))


def read(
    path: Path, files: frozenset[str], like: Mapping[str, torch.Tensor] | None = None
) -> Checkpoint:
    """Read a checkpoint whose `files` are verified.

    What was saved in shards is read in those that the parameters `like` have, or else whole.

    Raises DamagedCheckpointError, and StrawberryError if another version of Strawberry wrote it.
    """
    try:
        random = load_file(path / RANDOM)
        state = json.loads((path / STATE).read_text())
        version = state.get("format")
        model, optimizer = _tensors(path, files, like or {})
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path}: {error}") from error
    if version != FORMAT:
        raise StrawberryError(
            f"{path}: has format {version}; this Strawberry reads {FORMAT}. Use the version that "
            f"wrote it, which run.json names"
        )
    return Checkpoint(model, optimizer, random, state, path)


def _tensors(
    path: Path, files: frozenset[str], like: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Those of the model, and of the optimizer."""
    if PARTS[0] in files:
        return load_file(path / PARTS[0]), load_file(path / PARTS[1])
    from strawberry.runs import shards

    tensors = shards.read(path / SHARDS, files, like)
    return tensors.get("model", {}), tensors.get("optimizer", {})


def newest_whole(folder: Path) -> tuple[Path, frozenset[str], list[str]]:
    """The newest whole checkpoint, its files, and a line for each damaged one passed over.

    Raises StrawberryError if there is none.
    """
    passed: list[str] = []
    for path in newest(folder):
        try:
            return path, verify(path), passed
        except DamagedCheckpointError as error:
            passed.append(f"damaged checkpoint passed over: {error}")
    raise StrawberryError("\n".join([*passed, f"{folder}: there is no whole checkpoint"]))


def load_newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest whole checkpoint, read whole, and a line for each damaged one passed over.

    Raises StrawberryError if there is none.
    """
    path, files, passed = newest_whole(folder)
    return read(path, files), passed


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
    except DamagedCheckpointError as error:
        raise StrawberryError(f"the best checkpoint is damaged: {error}") from error


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _steps(folder: Path) -> list[Path]:
    """The folders of checkpoints, by step."""
    folders = {path.name.removeprefix("step-"): path for path in folder.glob("step-*")}
    return [folders[step] for step in sorted(filter(str.isdecimal, folders), key=int)]


def _portable(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, contiguous, and with storage of its own."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def digest(path: Path) -> list[Any]:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        return [hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
