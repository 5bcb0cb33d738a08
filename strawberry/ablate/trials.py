"""Trials: a cell with a seed, identified by the hash of all that determines the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import strawberry
from strawberry.contracts.execution import DISQUALIFIED, FINISHED, Job
from strawberry.data import open_dataset
from strawberry.files.storage import file_digest
from strawberry.plugin import Plugins
from strawberry.recipe import patch
from strawberry.recipe.spec import Recipe
from strawberry.runs.folder import effective, flat

UNIMPORTANT = (
    "name",
    "seed",  # each trial is given one
    "requires",
    "scale",
    "trackers",
    "train.device",
    "train.threads",
    "train.keep_memory",
    "train.keep_checkpoints",
    "train.keep_best",
    "train.checkpoint_interval",
    "train.checkpoint_steps",
    "train.log_interval",
)
"""Recipe paths that don't affect a trial's result, or only as the machine does."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A cell's recipe with a seed.

    Attributes:
        cell: the cell's name.
        stage: `main`, `tune` or `halving`.
        label: the tuned values, such as a learning rate.
        key: the hash; part of the folder's name.
    """

    cell: str
    stage: str
    seed: int
    label: str
    recipe: Recipe
    key: str
    folder: Path

    @property
    def name(self) -> str:
        """Name for people."""
        return " ".join(filter(None, [self.cell, self.label, f"seed {self.seed}"]))

    def job(self, parent: tuple[Path, int] | None = None) -> Job:
        """The request for an executor; creates the parent of the trial's folder.

        Args:
            parent: the run that it starts from, after one of its steps, if its checkpoint is there.
        """
        self.folder.parent.mkdir(exist_ok=True)
        plugins = self.recipe.plugins
        records = [] if plugins is None else plugins.records
        # An installed plugin is found again by itself.
        files = [str(r.file.absolute()) for r in records if r.file and not r.distribution]
        request: dict[str, Any] = {
            "name": self.name,
            "key": self.key,
            "source": str(self.recipe.source.absolute()),
            "recipe": self.recipe.to_yaml(),
            "origin": self.recipe.origin.to_dict(),
            "plugin_files": files,
            "disabled": [r.name for r in records if r.status == "disabled"],
        }
        if parent is not None:
            request["fork"] = {"run": str(parent[0].absolute()), "step": parent[1]}
        return Job(self.name, self.folder, request)

    def result(self) -> dict[str, Any] | None:
        """The result, if the trial has run and its request is unchanged."""
        try:
            result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
            asked = json.loads((self.folder / "trial.json").read_text())
        except (OSError, ValueError):
            return None
        return result if asked.get("key") == self.key else None

    @property
    def done(self) -> bool:
        """Return whether it finished; a crashed or diverged trial has not."""
        result = self.result()
        return result is not None and result.get("status") in (FINISHED, DISQUALIFIED)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of its log."""
        from strawberry.runs.folder import RunFolder

        return RunFolder(self.folder / "run").metrics()


class Trials:
    """Creates trials of recipes; the fingerprint of each data section is computed once.

    Args:
        folder: the ablation's folder.
        say: receives notes about the data.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.folder = folder
        self._say = say
        self._data: dict[str, str] = {}
        self._folders: dict[str, Path] = {}

    def make(
        self,
        cell: str,
        recipe: Recipe,
        seed: int,
        *,
        stage: str = "main",
        label: str = "",
        values: Mapping[str, Any] | None = None,
    ) -> Trial:
        """The trial of a recipe with this seed, and with `values` applied."""
        recipe = patch(recipe, {**(values or {}), "seed": seed})
        key = self._key(recipe)
        folder = self.folder / "trials" / f"{_safe(cell)}-{seed}-{key[:10]}"
        folder = self._folders.setdefault(key, folder)  # tuned cells may come to the same trial
        return Trial(cell, stage, seed, label, recipe, key, folder)

    def _key(self, recipe: Recipe) -> str:
        content = {
            "recipe": identity(recipe),
            "seed": recipe.seed,
            "torch": torch.__version__,
            "data": self._fingerprint(recipe),
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _fingerprint(self, recipe: Recipe) -> str:
        """The fingerprint of the recipe's data; computed once for equal data sections."""
        parts = {
            "data": recipe.data.to_dict(),
            "tokenizer": recipe.tokenizer.to_dict(),
            "sizes": [recipe.model.vocab_size, recipe.model.block_size],
        }
        known = json.dumps(parts, sort_keys=True, default=str)
        if known not in self._data:
            dataset = open_dataset(recipe)
            self._data[known] = dataset.fingerprint
            for line in dataset.notes:
                self._say(line)
        return self._data[known]


def matters(path: str) -> bool:
    """Return whether a recipe path affects a trial's result."""
    return not any(
        path == each or path.startswith((f"{each}.", f"{each}[")) for each in UNIMPORTANT
    )


def identity(recipe: Recipe) -> str:
    """All of a recipe that determines a trial's result, apart from seed and data."""
    wanted = {path: value for path, value in effective(recipe).items() if matters(path)}
    return json.dumps([wanted, versions(recipe)], sort_keys=True, default=str)


def versions(recipe: Recipe) -> dict[str, str]:
    """The plugin versions of a recipe's components; for a one-file plugin, its hash."""
    used = {
        str(value).partition("/")[0]
        for path, value in flat(recipe.to_dict()).items()
        if path.endswith(("use", "params")) and "/" in str(value)
    }
    installed = {"strawberry": strawberry.__version__}
    records = recipe.plugins.records if isinstance(recipe.plugins, Plugins) else []
    for record in records:
        if record.name in used and not record.builtin:
            if record.file is not None and not record.distribution:
                digest = file_digest(Path(record.file))
                installed[record.name] = f"sha256:{digest[:16]}"
            else:
                installed[record.name] = f"{record.distribution} {record.version}"
    return installed


def _safe(name: str) -> str:
    """A cell's name as a short path component, safe in a shell."""
    kept = "".join(c if c.isalnum() or c in "._" else "-" for c in name)
    return kept[:48].strip("-.") or "cell"


def undone(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that have not run."""
    return [trial for trial in trials if not trial.done]
