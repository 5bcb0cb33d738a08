"""Runs of a folder: found, summed up, compared, removed."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from strawberry.errors import StrawberryError
from strawberry.files.lock import FolderInUse, holder
from strawberry.recipe.yaml import read_tree
from strawberry.runs.folder import OURS, RunFolder, flat
from strawberry.runs.ledger import RECORD

Status: TypeAlias = Literal["running", "finished", "stopped"]
GRAVE: Final = ".removed-"
"""Beginning of the name of a run's folder while it is removed."""
DRAWN: Final = frozenset({"loss.png", "loss.svg", "loss.pdf"})
"""Pictures that `strawberry plot` puts beside what a run writes."""
DEEP: Final = 4


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run's files say of it.

    Attributes:
        folder: the run folder.
        recipe: the name in its recipe.
        step: the last step in its log.
        last: the recipe's number of steps.
        loss: the last validation loss, in nats a token; None before the first evaluation.
        best: the lowest one.
        began: when it began.
        size: bytes of its files.
        status: whether a process trains it, it is finished, or it stopped before its end.
        data: fingerprint of its data.
        fields: the resolved recipe, as `path -> value`.
    """

    folder: Path
    recipe: str
    step: int
    last: int
    loss: float | None
    best: float | None
    began: dt.datetime
    size: int
    status: Status
    data: str
    fields: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> RunSummary:
        """The summary of a run; raises StrawberryError if the folder has no run."""
        run = RunFolder(folder)
        if not run.exists:
            raise StrawberryError(f"{folder}: is not a run: it has no recipe.yaml")
        info, rows = run.info(), run.metrics()
        recipe: Any = read_tree(run.recipe_file).plain()
        step = max((int(row.get("step", 0)) for row in rows), default=0)
        losses = [float(row["val_loss"]) for row in rows if "val_loss" in row]
        last = int(recipe["train"]["max_iters"])
        stopped: Status = "finished" if step >= last else "stopped"
        return cls(
            folder, str(recipe["name"]), step, last,
            losses[-1] if losses else None, min(losses, default=None),
            dt.datetime.fromisoformat(info["began"]), size_of(folder),
            "running" if holder(folder) else stopped,
            str(info["data"]["fingerprint"]), flat(recipe),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For programs: everything but the recipe."""
        names = ("recipe", "step", "last", "loss", "best", "size", "status", "data")
        return {
            "folder": str(self.folder),
            **{name: getattr(self, name) for name in names},
            "began": self.began.isoformat(),
        }


def find_runs(folder: Path, deep: int = DEEP) -> Iterator[Path]:
    """The runs in a folder and its folders, in order; without the trials of ablations."""
    if (folder / "recipe.yaml").is_file() and (folder / "run.json").is_file():
        yield folder
        return
    if deep == 0 or (folder / RECORD).is_file():
        return
    with contextlib.suppress(PermissionError):
        for each in sorted(folder.iterdir()):
            if each.is_dir() and not each.name.startswith(".") and not each.is_symlink():
                yield from find_runs(each, deep - 1)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; those that go away meanwhile don't count."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.lstat().st_size if not file.is_dir() else 0
    return total


def differences(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """The recipe's fields that are not the same in all runs, by path; None where one lacks it."""
    paths = dict.fromkeys(path for run in runs for path in run.fields)
    rows = {path: [run.fields.get(path) for run in runs] for path in paths if path != "name"}
    return {path: values for path, values in rows.items() if any(v != values[0] for v in values)}


def removable(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs in these folders, each once.

    Raises:
        StrawberryError: one is not a run, is a trial of an ablation, has files that no run writes,
            or a process trains it.
    """
    runs = [RunFolder(folder) for folder in dict.fromkeys(path.resolve() for path in folders)]
    for run in runs:
        _check(run.path)
    return runs


def remove(folders: Sequence[Path]) -> None:
    """Remove runs: all of them, or none if one can't be removed.

    Each folder is renamed first, so that no half of a run is ever left under its name. Raises
    StrawberryError as `removable`, and FolderInUse.
    """
    runs = removable(folders)
    with contextlib.ExitStack() as held:
        for run in runs:
            run.hold()
            held.callback(run.release)
        for grave in _buried([run.path for run in runs]):
            shutil.rmtree(grave)


def _check(folder: Path) -> None:
    """Raise StrawberryError if a folder must not be removed."""
    if not RunFolder(folder).exists or not (folder / "run.json").is_file():
        raise StrawberryError(f"{folder}: is not a run: it has no recipe.yaml and run.json")
    ablation = next((each for each in folder.parents if (each / RECORD).is_file()), None)
    if ablation is not None:
        raise StrawberryError(f"{folder}: is a trial of the ablation {ablation}, which needs it")
    if who := holder(folder):
        raise FolderInUse(f"{folder}: {who} is training here")
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in OURS | DRAWN and not path.name.startswith(".")
    )
    if others:
        raise StrawberryError(f"{folder}: contains {others[0]}, which no run writes; move it first")


def _buried(folders: Sequence[Path]) -> list[Path]:
    """Rename runs' folders, and return their new names, which no list shows; all or none."""
    graves: list[Path] = []
    for folder in folders:
        grave = folder.with_name(f"{GRAVE}{folder.name}-{secrets.token_hex(4)}")
        try:
            folder.rename(grave)
        except OSError as error:
            for back, name in zip(graves, folders, strict=False):
                back.rename(name)
            raise StrawberryError(f"{folder}: can't remove: {error.strerror}") from error
        graves.append(grave)
    return graves
