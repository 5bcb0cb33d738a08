"""Repeat one published trial from its record alone."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from strawberry.ablate.worker import read_recipe
from strawberry.contracts.execution import FINISHED
from strawberry.errors import StrawberryError
from strawberry.plugin import Plugins
from strawberry.plugin.words import did_you_mean
from strawberry.runs.folder import RunFolder
from strawberry.training import train

CLOSE = 1e-3
"""Largest relative difference of results on different machines that still counts as agreement."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The result of a repetition; `environment` has a line for each difference."""

    name: str
    metric: str
    before: float
    after: float
    same_losses: int
    losses: int
    environment: list[str]

    @property
    def agrees(self) -> bool:
        """Bit-identical on the original machine, close on another."""
        if not self.environment:
            return self.same_losses == self.losses
        return math.isclose(self.after, self.before, rel_tol=CLOSE)

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.same_losses == self.losses:
            return f"match: all {self.losses} logged losses are bit-identical"
        word = "agrees" if self.agrees else "DIFFERS"
        same = f"{self.same_losses} of {self.losses} logged losses are bit-identical"
        apart = abs(self.after - self.before)
        by = f"{apart / abs(self.before):.2%}" if self.before else f"{apart:.3g}"
        return f"{word}: {same}, and the result differs by {by}"

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**asdict(self), "agrees": self.agrees, "verdict": self.verdict}


def _check(file: Path, record: Any, wanted: tuple[str, ...]) -> None:
    missing = [key for key in wanted if not isinstance(record, dict) or key not in record]
    if missing:
        raise StrawberryError(f"{file}: incomplete record; missing: {', '.join(missing)}")


def reproduce(folder: Path, metric: str = "val_loss") -> Reproduction:
    """Train a finished trial again in a temporary folder, and compare every logged loss.

    Its plugins are those of this environment and its own one-file plugins, less those that it
    disabled.

    Args:
        folder: the trial's folder, or its `result.json`.
        metric: the final metric to compare.

    Raises:
        StrawberryError: there is no finished trial, or it can't run here.
    """
    folder = folder.parent if folder.name == "result.json" else folder
    try:
        request = json.loads((folder / "trial.json").read_text())
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError) as error:
        raise StrawberryError(
            f"{folder}: contains no trial (trial.json and result.json)"
        ) from error
    _check(folder / "trial.json", request, ("name", "source", "recipe", "plugin_files", "disabled"))
    _check(folder / "result.json", result, ("status", "metrics"))
    if result["status"] != FINISHED:
        raise StrawberryError(f"{folder}: the trial did not finish: {result['status']}")
    if metric not in result["metrics"]:
        raise StrawberryError(
            f"{folder}: the trial has no {metric}{did_you_mean(metric, result['metrics'])}"
        )
    files = [Path(file) for file in request["plugin_files"]]
    plugins = Plugins.load(files=files, disabled=request["disabled"])
    recipe = read_recipe(request, plugins)
    if request.get("threads"):
        import torch

        torch.set_num_threads(request["threads"])
    old = RunFolder(folder / "run")
    logged, old_info = _losses(old), json.loads(old.info_file.read_text())
    if not logged:
        raise StrawberryError(f"{folder}: the trial logged no losses to compare")
    with tempfile.TemporaryDirectory() as temporary:
        new = RunFolder(Path(temporary) / "run")
        done = train(recipe, new.path)
        now = _losses(new)
        new_info = json.loads(new.info_file.read_text())
    compared = ("strawberry", "python", "platform", "torch", "device_name", "dtype", "compiled",
                "threads", "plugins", "data")  # fmt: skip
    changed = [f"{k}: {old_info.get(k)} -> {new_info.get(k)}"
               for k in compared if old_info.get(k) != new_info.get(k)]  # fmt: skip
    return Reproduction(
        name=request["name"],
        metric=metric,
        before=result["metrics"][metric],
        after=done.metrics[metric],
        # By their texts, since NaN equals nothing.
        same_losses=sum(repr(loss) == repr(now.get(key)) for key, loss in logged.items()),
        losses=len(logged),
        environment=changed,
    )


def _losses(run: RunFolder) -> dict[tuple[int, str], float]:
    """All logged values that are not about time."""
    return {
        (row["step"], name): value
        for row in run.metrics()
        for name, value in row.items()
        if name not in ("step", "tokens_per_second")
    }
