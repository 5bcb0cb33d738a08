"""Progress of an ablation: a live table, or one line for each trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from strawberry.ablate.forecast import Forecast
from strawberry.ablate.report import outlook
from strawberry.ablate.sweep import SweepObserver
from strawberry.ablate.trials import Trial
from strawberry.cli.console import animates, table
from strawberry.contracts.execution import FINISHED, FinishedJob, Job
from strawberry.figures import eta


class SweepDisplay(SweepObserver):
    """Shows the trials of each cell; a context manager that restores the terminal.

    Args:
        console: where to.
        folder: the ablation's.
        slots: how many trials run at once.
        quiet: show failures alone.
    """

    def __init__(self, console: Console, folder: Path, slots: int, *, quiet: bool = False) -> None:
        super().__init__()
        self.console = console
        self.quiet = quiet
        self.live_ok = not quiet and animates(console.file)
        self.folder = folder
        self.slots = slots
        self.name = ""
        self.trials: dict[str, Trial] = {}
        self.state: dict[str, str] = {}
        self.values: dict[str, float] = {}
        self.total = self.done = self.fresh = 0
        self.started_at = 0.0
        self.live: Live | None = None

    def __enter__(self) -> SweepDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def stage(self, name: str, trials: Sequence[Trial], done: int) -> None:
        """Start a round of trials."""
        self.name, self.total, self.done, self.fresh = name, len(trials), done, 0
        self.started_at = time.monotonic()
        self.trials = {trial.name: trial for trial in trials}
        self.state = {}
        for trial in trials:
            result = trial.result()
            if result is not None and result["status"] == FINISHED:
                self._note(trial.name, result)
            else:
                self.state[trial.name] = "waiting"
        text = f"{name}: {len(trials)} trials, {done} already done, {self.slots} at once"
        if not self.quiet:
            self.console.print(f"{text}, in {self.folder}")
        self._show()

    def start(self, job: Job) -> None:
        """Show that a trial started."""
        self.state[job.name] = "running"
        self._show()

    def end(self, ended: FinishedJob) -> None:
        """Show that a trial ended."""
        self.done += 1
        self.fresh += 1
        self._note(ended.job.name, ended.result)
        if ended.status != FINISHED:
            first = str(ended.result.get("error", "")).partition("\n")[0]
            self.console.print(f"{ended.job.name}: {ended.status}: {first}", style="yellow")
        elif not self.quiet and not self.live_ok:
            value = self.values.get(ended.job.name)
            loss = "" if value is None else f"  val_loss {value:.4f}"
            self.console.print(
                f"{self.done}/{self.total}  {ended.job.name}{loss}  "
                f"{ended.result['spent']:.0f} s  ETA {self._eta()}"
            )
        self._show()

    def say(self, text: str) -> None:
        """Show a warning."""
        self.console.print(text, style="yellow")

    def forecast(self, forecast: Forecast | None) -> None:
        """Show what the seeds can detect."""
        for line in () if self.quiet else outlook.dry(forecast):
            self.console.print(line)

    def _note(self, name: str, result: Mapping[str, Any]) -> None:
        self.state[name] = str(result["status"])
        loss = result.get("metrics", {}).get("val_loss")
        if loss is not None:
            self.values[name] = loss

    def _show(self) -> None:
        if not self.live_ok:
            return
        if self.live is None:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        rows = table("cell", "done", "running", "failed", "mean val_loss")
        by_cell: dict[str, list[str]] = {}
        for name, trial in self.trials.items():
            by_cell.setdefault(trial.cell, []).append(name)
        for cell, names in by_cell.items():
            states = [self.state[name] for name in names]
            values = [self.values[n] for n in names if n in self.values]
            failed = sum(s not in (FINISHED, "running", "waiting") for s in states)
            rows.add_row(
                cell,
                f"{states.count(FINISHED)}/{len(names)}",
                str(states.count("running") or ""),
                str(failed or ""),
                f"{sum(values) / len(values):.4f}" if values else "",
            )
        foot = f"{self.name}  {self.done}/{self.total}  ETA {self._eta()}; Ctrl-C saves and stops"
        self.live.update(Group(rows, Text(foot, style="dim")))

    def _eta(self) -> str:
        return eta(time.monotonic() - self.started_at, self.fresh, self.total - self.done)


class RoundDisplay(SweepDisplay):
    """The display of one of several ablations, without what its seeds alone would show."""

    def forecast(self, forecast: Forecast | None) -> None:
        """Ignored: the ablations are judged together."""
