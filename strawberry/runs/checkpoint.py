"""Checkpoints: a folder that is either complete and verified, or absent.

    checkpoints/step-00000250/
        model.safetensors  optimizer.safetensors  random.safetensors  state.json
        manifest.json      SHA-256 and size of each of the others

Where ranks have the model in shards, a folder `shards/` takes the place of the first two: see
`shards.py`.

It is written under a temporary name; every file and the folder are flushed to disk; then it is
renamed. Reading runs no pickled code. Hashes detect a damaged checkpoint before it is used, and the
previous one is taken. Transient disk errors are retried.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from strawberry.errors import DamagedCheckpointError, StrawberryError
from strawberry.files.atomic import flush
from strawberry.files.retry import retried
from strawberry.files.storage import file_digest

FORMAT = 2
"""Version of the checkpoint format; others are refused by name."""

PARTS = ("model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json")
RANDOM, STATE = PARTS[2:]
MANIFEST = "manifest.json"
SHARDS = "shards"
"""Folder in a checkpoint for the shards of ranks."""

TEMPORARY = ".writing-"
OLD = "-old"


@dataclass(frozen=True, slots=True)
class CheckpointData:
    """The contents of a checkpoint: a run after one of its steps.

    Attributes:
        model: parameters and buffers by name; with several ranks, whole or this one's shards.
        optimizer: state of the optimizers, by path.
        random: states of torch's generators, by rank and device.
        state: everything else, as JSON; `step` is the number of finished steps.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    random: dict[str, torch.Tensor]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint(CheckpointData):
    """The contents of a checkpoint, with its folder."""

    path: Path


@dataclass(frozen=True, slots=True)
class CheckpointPolicy:
    """Retention: which checkpoints stay after a new one is complete.

    Attributes:
        newest: number of newest checkpoints to keep, including the new one.
        steps: those of checkpoints to keep in any case.
        warn: receives a message about an old one that can't be removed.
    """

    newest: int
    steps: frozenset[int] = frozenset()
    warn: Callable[[str], None] = lambda _: None


def save(folder: Path, moment: CheckpointData, keep: CheckpointPolicy) -> Path:
    """Write a checkpoint into `folder`, and remove those not to be kept.

    Raises StrawberryError if the new one can't be written; existing checkpoints then stay.
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
    """A folder for a checkpoint's tensors, with the rest already in it; raises as `save` does."""
    target = _path(folder, moment.state["step"])
    with _told(target):
        return retried(lambda: _begun(target, moment))


def seal(
    temporary: Path, keep: CheckpointPolicy, known: Mapping[str, list[Any]] | None = None
) -> Path:
    """Add the manifest to the folder of `begin`, rename it, and remove those not to be kept.

    `known` has digests of files that need not be read again. Raises StrawberryError as `save`.
    """
    target = temporary.with_name(temporary.name.removeprefix(TEMPORARY))
    with _told(target):
        retried(lambda: _finish(temporary, target, known or {}))
    _drop_old(target, keep)
    return target


def _begun(target: Path, moment: CheckpointData) -> Path:
    """The temporary folder of a checkpoint, with its generators and state only."""
    folder = target.parent
    folder.mkdir(exist_ok=True)  # and no parents: a run folder that was moved stays away
    tidy(folder)
    temporary = folder / f"{TEMPORARY}{target.name}"
    temporary.mkdir()
    save_file({k: _portable(t) for k, t in moment.random.items()}, temporary / RANDOM)
    (temporary / STATE).write_text(json.dumps({"format": FORMAT, **moment.state}))
    return temporary


def _finish(temporary: Path, target: Path, known: Mapping[str, list[Any]]) -> None:
    """Write the manifest and rename; can be repeated after any interruption."""
    if temporary.exists():
        manifest = temporary / MANIFEST
        files = [p for p in sorted(temporary.rglob("*")) if p.is_file() and p != manifest]
        names = {file: file.relative_to(temporary).as_posix() for file in files}
        digests = {name: known.get(name) or digest(file) for file, name in names.items()}
        manifest.write_text(json.dumps(digests, indent=1))
        for path in (*files, manifest, *sorted({file.parent for file in files})):
            flush(path)
        if target.exists():  # a step that was reached again after a resume
            target.rename(_replaced(target))
        temporary.rename(target)
    flush(target.parent)


def _drop_old(target: Path, keep: CheckpointPolicy) -> None:
    """Remove checkpoints that are no longer kept, after `target` is complete."""
    folder = target.parent
    steps = _steps(folder)
    if target not in steps:
        return  # the folder was moved away meanwhile, which whoever writes next is told
    # Later steps than this one are damaged ones that the run went back behind.
    here = steps.index(target)
    gone = [_replaced(target), *steps[: max(0, here + 1 - keep.newest)], *steps[here + 1 :]]
    stay = {_path(folder, step) for step in keep.steps}
    for old in gone:
        if old not in stay:
            _remove(old, keep.warn)


def _replaced(target: Path) -> Path:
    """Temporary name of a checkpoint while another one takes its name."""
    return target.parent / f"{TEMPORARY}{target.name}{OLD}"


@contextlib.contextmanager
def _told(target: Path) -> Iterator[None]:
    """Raise StrawberryError for a disk error; the previous state is restored."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        tidy(target.parent)
        raise StrawberryError(f"{target}: can't write the checkpoint: {error}") from error


def newest(folder: Path) -> Iterator[Path]:
    """The checkpoints in `folder`, newest first."""
    yield from reversed(_steps(folder))


def tidy(folder: Path) -> None:
    """Remove leftovers of a killed writer, and restore a checkpoint that it had moved away.

    Only the holder of the run may call this, and not while it writes.
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
        warn(f"{path}: can't remove the old checkpoint: {error.strerror or error}")


def verify(path: Path) -> frozenset[str]:
    """File names of a checkpoint, each verified against its manifest.

    Only Strawberry's files and those in `shards/` count; other entries of a manifest are ignored.
    Raises DamagedCheckpointError.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        shards = [n for n in manifest if n.startswith(f"{SHARDS}/") and n.count("/") == 1]
        names = [RANDOM, STATE, *shards] if shards else PARTS
        for name in names:
            if digest(path / name) != manifest[name]:
                raise DamagedCheckpointError(f"{path / name} differs from what was written")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{path}: {error}") from error
    return frozenset(names)


def load(path: Path) -> Checkpoint:
    """Verify and read one checkpoint, unsharded; raises as `read` does."""
    return read(path, verify(path))


def read(
    path: Path, files: frozenset[str], like: Mapping[str, torch.Tensor] | None = None
) -> Checkpoint:
    """Read a checkpoint whose `files` are verified.

    A sharded checkpoint is read in the shards of the parameters `like`, or else unsharded.

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
            f"{path}: has format {version}; this Strawberry reads {FORMAT}. Use the version "
            "that wrote it, recorded in run.json"
        )
    return Checkpoint(model, optimizer, random, state, path)


def _tensors(
    path: Path, files: frozenset[str], like: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of the model, and of the optimizer."""
    if PARTS[0] in files:
        return load_file(path / PARTS[0]), load_file(path / PARTS[1])
    from strawberry.runs import shards

    tensors = shards.read(path / SHARDS, files, like)
    return tensors.get("model", {}), tensors.get("optimizer", {})


def newest_whole(folder: Path) -> tuple[Path, frozenset[str], list[str]]:
    """The newest intact checkpoint, its files, and a line for each damaged one skipped.

    Raises StrawberryError if there is no intact checkpoint.
    """
    passed: list[str] = []
    for path in newest(folder):
        try:
            return path, verify(path), passed
        except DamagedCheckpointError as error:
            passed.append(f"skipped a damaged checkpoint: {error}")
    raise StrawberryError("\n".join([*passed, f"{folder}: there is no intact checkpoint"]))


def of_step(folder: Path, step: int) -> tuple[Path, frozenset[str], list[str]]:
    """The checkpoint after a step, in the form of `newest_whole`.

    Raises DamagedCheckpointError if it is damaged, or absent: with the steps that are there.
    """
    path = _path(folder, step)
    if not path.exists():
        there = ", ".join(str(int(each.name.removeprefix("step-"))) for each in _steps(folder))
        message = f"{folder}: there is no checkpoint after step {step}; steps: {there or 'none'}"
        raise DamagedCheckpointError(message)
    return path, verify(path), []


def load_newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest intact checkpoint, read unsharded, and a line for each damaged one skipped.

    Raises StrawberryError if there is no intact checkpoint.
    """
    path, files, passed = newest_whole(folder)
    return read(path, files), passed


def load_best(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The checkpoint with the lowest val_loss, and the warnings of `load_newest`.

    Raises StrawberryError if none was kept, or if it is damaged.
    """
    last, passed = load_newest(folder)
    best = last.state.get("best")
    if best is None:
        raise StrawberryError(f"{folder}: no best checkpoint was kept; set train.keep_best")
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
    """A contiguous copy on the CPU with its own storage."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def digest(path: Path) -> list[Any]:
    """SHA-256 and size of a file."""
    return [file_digest(path), path.stat().st_size]
