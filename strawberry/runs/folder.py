"""A run's folder: its recipe, environment, logs and checkpoints.

It contains:

    recipe.yaml     the recipe, resolved and filled in; loads again
    run.json        versions, plugins, device, data, seed, command
    metrics.jsonl   a row for each logged step, and for each evaluation
    tokenizer.json  the tokenizer of the data
    checkpoints/    see checkpoint.py
    nonfinite/      batches whose loss or gradient was not finite; in rows/ losses by row
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from strawberry.contracts import world_size
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.files.lock import FolderLock
from strawberry.files.retry import retried
from strawberry.ranks.world import World, by_main
from strawberry.recipe.origin import NOTED
from strawberry.runs import checkpoint

if TYPE_CHECKING:
    from strawberry.data import Dataset
    from strawberry.recipe.spec import Recipe
    from strawberry.runs.device import Machine


class RunFolder:
    """The folder of one run; locked during training.

    With several ranks the main one writes, and reads values on which all must agree; the others
    call the same methods.
    """

    def __init__(self, path: str | Path, world: World | None = None) -> None:
        self.path = Path(path)
        self.world = world if world is not None else World()
        self.recipe_file = self.path / "recipe.yaml"
        self.info_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.referee_file = self.path / "referee.json"
        self.tokenizer_file = self.path / "tokenizer.json"
        self.checkpoints = self.path / "checkpoints"
        self.rows = self.path / "rows"
        self._lock = FolderLock(self.path, "is training here")

    @property
    def exists(self) -> bool:
        """True if a run has started here."""
        return self.recipe_file.exists()

    def hold(self) -> None:
        """Lock the folder for this process; creates it if necessary.

        Raises FolderInUse if another process has it, and StrawberryError if it contains anything
        but a run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if not self.exists and not OURS.issuperset(others):
                raise StrawberryError(
                    f"{self.path}: is not empty (it contains {others[0]}); name another --run-dir"
                )
            self._lock.acquire()
        except OSError as error:
            raise StrawberryError(f"{self.path}: can't write: {error.strerror}") from error

    @by_main
    def take(self, resume: bool) -> bool:
        """Lock the folder for a run, and return whether to resume; restarted ranks always resume.

        Raises StrawberryError if there is a run without `resume`, or `resume` without a run.
        """
        again = self.exists and (resume or self.world.restarts > 0)
        if self.exists and not again:
            hint = "add --resume, or name another --run-dir"
            raise StrawberryError(f"{self.path}: contains a run; {hint}")
        if resume and not again:
            raise StrawberryError(f"{self.path}: there is no run to resume")
        self.hold()
        return again

    def release(self) -> None:
        """Unlock the folder; one without a run is removed."""
        if not self._lock.held:
            return
        if not self.exists:
            self._lock.file.unlink(missing_ok=True)
        self._lock.release()
        if not self.exists:
            with contextlib.suppress(OSError):  # something else is in it
                self.path.rmdir()

    @by_main
    def begin(
        self,
        recipe: Recipe,
        dataset: Dataset,
        machine: Machine,
        fork: Mapping[str, Any] | None = None,
    ) -> None:
        """Write run.json and the recipe before the first step; for a fork, with its parent."""
        if dataset.tokenizer is not None:
            dataset.tokenizer.save(self.tokenizer_file)
        info = environment(recipe, dataset, machine)
        if fork is not None:
            info["fork"] = dict(fork)
        write_atomic(self.info_file, json.dumps(info, indent=2) + "\n")
        write_atomic(self.recipe_file, recipe.to_yaml())  # last: it makes the folder a run

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl; raises StrawberryError on a disk error."""

        def write() -> None:
            with self.metrics_file.open("a") as file:
                file.write(json.dumps(row) + "\n")

        try:
            retried(write)
        except OSError as error:
            raise StrawberryError(f"{self.metrics_file}: {error.strerror or error}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """All rows, without an incomplete last line."""
        rows = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.metrics_file.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    rows.append(json.loads(line))
        return rows

    def breaches(self) -> list[str]:
        """The referee's findings of this run so far."""
        return list(self.judgement().get("breaches", []))

    def judgement(self) -> dict[str, Any]:
        """All of the referee's records of this run; empty before its first look."""
        try:
            judgement: dict[str, Any] = json.loads(self.referee_file.read_text())
        except (OSError, ValueError):
            return {}
        return judgement

    def losses(self) -> list[float]:
        """The logged training losses."""
        return [row["loss"] for row in self.metrics() if "loss" in row]

    @by_main
    def take_log(self, run: RunFolder, step: int) -> None:
        """Copy the rows of `run` up to `step` into this run's log."""
        self._take_log(run, step)

    def _take_log(self, run: RunFolder, step: int) -> None:
        kept = [row for row in run.metrics() if row["step"] <= step]
        write_atomic(self.metrics_file, "".join(json.dumps(row) + "\n" for row in kept))

    @by_main
    def forget_after(self, step: int) -> None:
        """Remove metrics and losses by row after `step`, which a resumed run writes again."""
        self._take_log(self, step)
        for file in self.rows.rglob("*.npz"):
            if int(file.stem) > step:
                file.unlink()

    @by_main
    def was_measured(self, step: int) -> bool:
        """Return whether the log has an evaluation of this step."""
        return any("val_loss" in row and row["step"] == step for row in self.metrics())

    @by_main
    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint, after removing leftovers of a killed process."""
        checkpoint.tidy(self.checkpoints)
        return any(checkpoint.newest(self.checkpoints))

    @by_main
    def newest_checkpoint(self) -> tuple[Path, frozenset[str], list[str]]:
        """The newest intact checkpoint, its files, and warnings about skipped ones."""
        return checkpoint.newest_whole(self.checkpoints)

    @by_main
    def checkpoint_of(self, step: int) -> tuple[Path, frozenset[str], list[str]]:
        """The checkpoint after a step and its files, as `newest_checkpoint` returns them."""
        return checkpoint.of_step(self.checkpoints, step)

    def changes(self, recipe: Recipe, dataset: Dataset) -> list[str]:
        """Differences of this recipe and data from those that the run started with, one a line."""
        from strawberry.recipe import load_recipe

        begun = load_recipe(self.path, plugins=recipe.plugins)
        before, now, written = effective(begun), effective(recipe), flat(begun.to_dict())
        lines = []
        for key in sorted({*before, *now}):
            was, is_now = before.get(key, "(absent)"), now.get(key, "(absent)")
            if was != is_now and key.partition("[")[0] not in FREE_TO_CHANGE:
                # What was written is the same: this follows from another value.
                follows = key in written and written[key] == flat(recipe.to_dict()).get(key)
                lines += _change(key, was, is_now, follows=follows)
        data = self.info()["data"]["fingerprint"]
        if data != dataset.fingerprint:
            lines.append(f"the data: {data[:12]} -> {dataset.fingerprint[:12]}")
        return lines

    @by_main
    def check_same(self, recipe: Recipe, dataset: Dataset) -> None:
        """Raises RunMismatch if this is not the run's recipe and data."""
        if lines := self.changes(recipe, dataset):
            raise RunMismatch(self.path, recipe.source, lines)

    def info(self) -> dict[str, Any]:
        """The contents of run.json; raises StrawberryError if it can't be read."""
        try:
            info: dict[str, Any] = json.loads(self.info_file.read_text())
        except (OSError, ValueError) as error:
            raise StrawberryError(f"{self.info_file}: can't read: {error}") from error
        return info

    def elsewhere(self, recipe: Recipe, machine: Machine) -> list[str]:
        """A warning if versions or hardware differ from those at the run's start."""
        before = self.info()
        now = computes_with(machine)
        changed = [f"{k} {before.get(k)} -> {now[k]}" for k in now if before.get(k) != now[k]]
        then, plugins = before.get("plugins", {}), plugin_versions(recipe)
        changed += [
            f"plugin {name} {then.get(name, '(absent)')} -> {plugins.get(name, '(absent)')}"
            for name in sorted({*then, *plugins})
            if then.get(name) != plugins.get(name)
        ]
        if not changed:
            return []
        return [
            f"this run started in another environment, so bits may differ: {', '.join(changed)}"
        ]


class RunMismatch(StrawberryError):  # noqa: N818 (what is given is right, for another run)
    """Recipe or data differ from the run's; the text lists the differences and what to do.

    Args:
        folder: the run folder.
        source: the recipe's file.
        lines: the differences.
        options: command-line options that define the recipe.
    """

    def __init__(
        self, folder: Path, source: Path, lines: list[str], options: Sequence[str] = ()
    ) -> None:
        self.folder, self.source, self.lines = folder, source, lines
        command = shlex.join(["strawberry", "train", str(source), "--fork", str(folder), *options])
        head = f"{folder}: differs from what the run started with:"
        tail = f"give the same recipe, or start another run: {command}"
        super().__init__("\n".join([head, *(f"  {line}" for line in lines), tail]))


OURS = frozenset(
    {
        "recipe.yaml",
        "run.json",
        "metrics.jsonl",
        "referee.json",
        "tokenizer.json",
        "checkpoints",
        "nonfinite",
        "rows",
    }
)
"""Files of a run folder."""

FREE_TO_CHANGE = frozenset(
    f"train.{name}"
    for name in (
        "max_iters",
        "log_interval",
        "eval_interval",
        "checkpoint_interval",
        "checkpoint_steps",
        "keep_checkpoints",
        "keep_best",
        "on_nonfinite",
        "device",
        "compile",
        "threads",
        "parallel",
        "checkpoint_activations",
        "keep_memory",
    )
)
"""Fields that a resumed run may change: its length, its reports, its machine."""


def effective(recipe: Recipe) -> dict[str, Any]:
    """The recipe as `path -> scalar`, with the end of the schedule resolved."""
    values = flat(recipe.to_dict())
    if values["train.lr_decay_iters"] is None:
        values["train.lr_decay_iters"] = recipe.train.max_iters
    if values["train.min_lr"] is None:
        values["train.min_lr"] = recipe.train.least_rate
    return values


def _change(key: str, was: Any, is_now: Any, *, follows: bool) -> list[str]:
    """The difference at a key, in a line; a derived value names its source."""
    if not follows:
        return [f"{key}: {was} -> {is_now}"]
    if key == "train.min_lr":
        return []  # a share of the peak, which is told
    return [
        f"train.max_iters: {was} -> {is_now}, which changes where the learning rate "
        f"ends its decay; --set train.lr_decay_iters={was} keeps its schedule"
    ]


def computes_with(machine: Machine) -> dict[str, Any]:
    """Environment facts that decide bit-exact reproduction."""
    return {
        "torch": torch.__version__,
        "device": str(machine.device),
        "device_name": device_name(machine.device),
        "dtype": str(machine.dtype).removeprefix("torch."),
        "compiled": machine.compiled,
        "threads": torch.get_num_threads(),
        "ranks": world_size(),
    }


def environment(recipe: Recipe, dataset: Dataset, machine: Machine) -> dict[str, Any]:
    """The contents of run.json."""
    import strawberry
    from strawberry.data import sections

    return {
        "strawberry": strawberry.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "plugins": plugin_versions(recipe),
        **computes_with(machine),
        "data": {
            "use": recipe.data.use,
            "fingerprint": dataset.fingerprint,
            "train_tokens": dataset.n_tokens("train"),
            "val_tokens": dataset.n_tokens("val"),
        },
        NOTED: recipe.origin.knowing(sections(recipe), dataset.entry).to_dict(),
        "seed": recipe.seed,
        "command": sys.argv,
        "began": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def plugin_versions(recipe: Recipe) -> dict[str, Any]:
    """The version of each working plugin."""
    records = recipe.plugins.records if recipe.plugins is not None else []
    return {record.name: record.version for record in records if record.status == "ok"}


def device_name(device: torch.device) -> str:
    """The device's name for people."""
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    if name is not None:
        return str(name(device))
    return platform.processor() or platform.machine()


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested data as `path -> scalar`."""
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {path: value}
    return {key: leaf for where, item in items for key, leaf in flat(item, where).items()}


def new_run_folder(name: str) -> Path:
    """`runs/NAME`, or with the first free number appended."""
    base = Path("runs") / name
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path
