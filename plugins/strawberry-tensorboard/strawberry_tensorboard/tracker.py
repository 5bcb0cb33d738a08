"""Event files that TensorBoard shows, written by torch's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge
from torch import nn

from strawberry.contracts import Tracker, TrackerSite
from strawberry.errors import FieldError, StrawberryError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoard(Tracker):
    """Writes every metric of a run to event files in its folder: `tensorboard --logdir runs`.

    Metrics of logged steps are under `train/`, those of evaluations under `eval/`; the recipe and
    the run's outcome are texts. Repeated steps of a resumed run replace the earlier ones.

    Args:
        folder: where the files are, in the run's folder.
        flush_secs: seconds after which what was written is on disk at the latest.
    """

    def __init__(
        self,
        site: TrackerSite,
        *,
        folder: str = "tensorboard",
        flush_secs: Annotated[int, Ge(1)] = 30,
    ) -> None:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise FieldError("folder", f"is in the run's folder, and so can't be {folder!r}")
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise StrawberryError(
                "the tracker `tensorboard` needs the package tensorboard: pip install tensorboard"
            ) from error
        self.folder = folder
        self.flush_secs = flush_secs
        self._recipe = ""
        self._step = 0
        self._writer: SummaryWriter | None = None

    def model_built(self, model: nn.Module, recipe: Any) -> None:
        """Keep the recipe for the first event, which tells where the run is."""
        self._recipe = recipe.to_yaml()

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of a logged step, under `train/`."""
        self._write(run, step, "train", metrics)

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Those of an evaluation, under `eval/`."""
        self._write(run, step, "eval", metrics)

    def run_finished(self, run: Path, status: str) -> None:
        """The way in which it ended; all is on disk then."""
        writer = self._open(run, self._step)
        writer.add_text("status", status, self._step)
        writer.close()
        self._writer = None

    def _write(self, run: Path, step: int, group: str, metrics: Mapping[str, float]) -> None:
        writer = self._open(run, step)
        self._step = step
        for name, value in metrics.items():
            writer.add_scalar(f"{group}/{name}", value, step)

    def _open(self, run: Path, step: int) -> SummaryWriter:
        """The writer; the first event of a resumed run voids what was written from it on."""
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            place = run / self.folder
            again = place.is_dir() and any(place.iterdir())
            self._writer = SummaryWriter(
                str(place), purge_step=step if again else None, flush_secs=self.flush_secs
            )
            if not again:
                indented = "".join(f"    {line}\n" for line in self._recipe.splitlines())
                self._writer.add_text("recipe", indented, step)  # Markdown: a block of code
        return self._writer
