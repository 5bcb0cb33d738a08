"""Logs runs to Weights & Biases, or to the run's folder until they are synchronised."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from strawberry.contracts import Tracker, TrackerSite
from strawberry.errors import StrawberryError

if TYPE_CHECKING:
    import wandb

ID = "strawberry.json"


class WandB(Tracker):
    """Sends every metric of a run, its recipe and its environment to Weights & Biases.

    Metrics of logged steps are under `train/`, those of evaluations under `eval/`, at the run's own
    steps. A resumed run continues in the same W&B run, which keeps the first values of repeated
    steps.

    Args:
        project: the W&B project.
        entity: the user or team; null takes the account's default.
        name: the run's name; null takes the recipe's.
        group: runs with the same one are shown together, such as the seeds of a recipe.
        tags: words to find the run by.
        mode: `online` sends while training, `offline` keeps all in the run's folder for `wandb
            sync`; null takes `WANDB_MODE`, or else `online`.
    """

    def __init__(
        self,
        site: TrackerSite,
        *,
        project: str = "strawberry",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise StrawberryError(
                "the tracker `wandb` needs the package wandb: pip install wandb"
            ) from error
        self.project = project
        self.entity = entity
        self.name = name
        self.group = group
        self.tags = tags
        self.mode = mode
        self._config: dict[str, Any] = {}
        self._title = ""
        self._run: wandb.Run | None = None

    def model_built(self, model: nn.Module, recipe: Any) -> None:
        """Keep what W&B shows as the configuration; the run itself begins with its first event."""
        self._config = recipe.to_dict()
        self._config["parameters"] = sum(p.numel() for p in model.parameters())
        self._title = recipe.name

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of a logged step, under `train/`."""
        self._log(run, step, "train", metrics)

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Those of an evaluation, under `eval/`."""
        self._log(run, step, "eval", metrics)

    def run_finished(self, run: Path, status: str) -> None:
        """The way in which it ended, and the end of the W&B run."""
        opened = self._open(run)
        opened.summary["status"] = status
        opened.finish(exit_code=0 if status == "finished" else 1)
        self._run = None

    def _log(self, run: Path, step: int, group: str, metrics: Mapping[str, float]) -> None:
        self._open(run).log({f"{group}/{k}": v for k, v in metrics.items()}, step=step)

    def _open(self, run: Path) -> wandb.Run:
        """The W&B run of this folder, whose id is kept there."""
        if self._run is None:
            import wandb

            place = run / "wandb"
            place.mkdir(exist_ok=True)
            again = (place / ID).exists()
            if not again:
                (place / ID).write_text(json.dumps({"id": secrets.token_hex(4)}))
            environment = json.loads((run / "run.json").read_text())
            try:
                self._run = wandb.init(
                    project=self.project,
                    entity=self.entity,
                    name=self.name or self._title,
                    group=self.group,
                    tags=self.tags,
                    mode=self.mode,
                    dir=str(run),
                    id=json.loads((place / ID).read_text())["id"],
                    resume="allow" if again else None,
                    config={**self._config, "environment": environment},
                    settings=wandb.Settings(silent=True, console="off"),
                )
            except wandb.Error as error:
                raise StrawberryError(
                    f"wandb: {error}; `mode: offline` keeps the run in its folder"
                ) from error
        return self._run
