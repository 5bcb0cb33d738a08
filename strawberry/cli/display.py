"""Progress of a run: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from strawberry.cli.console import animates
from strawberry.contracts import Tracker
from strawberry.figures import eta

if TYPE_CHECKING:
    from torch import nn

BARS = " .:-=+*#"
LINES = 40
"""Lines of steps that a log gets of a whole run, at most."""
EVERY = 60.0
"""Seconds after which it gets a line in any case."""
SPARK = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


class RunDisplay(Tracker):
    """Shows the steps of a run; a context manager that restores the terminal.

    Args:
        console: where to.
        quiet: show the last evaluation alone.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.plain = quiet or not animates(console.file)
        self.said = (0, 0.0)
        self.glyphs = SPARK if console.encoding.startswith("utf") else BARS
        self.live: Live | None = None
        self.first = self.step = self.last = 0
        self.started = 0.0
        self.losses: list[float] = []
        self.row: Mapping[str, float] = {}
        self.validation: Mapping[str, float] = {}
        self.stage = ""

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _due(self, step: int, now: float) -> bool:
        """Whether a log gets a line for this step: some forty of a run, and one each minute."""
        before, then = self.said
        due = step >= self.last or (step - before) * LINES >= self.last or now - then >= EVERY
        due = not self.quiet and (due or not then)
        if due:
            self.said = step, now
        return due

    # Before the first step

    def preparing(self, stage: str, done: int, total: int | None) -> None:
        """Progress of data preparation."""
        if self.plain:
            if stage != self.stage and not self.quiet:
                self.console.print(f"{stage} ...")
            self.stage = stage
            return
        share = f" {done / total:.0%}" if total else ""
        self._live().update(Text(f"{stage}{share}", style="cyan"))

    def model_built(self, model: nn.Module, recipe: Any) -> None:
        """Show the model and device before training starts."""
        self._stop()
        self.last = recipe.train.max_iters
        count = sum(p.numel() for p in model.parameters())
        device = next(model.parameters()).device
        if self.quiet:
            return
        self.console.print(f"{recipe.name}: {count:,} parameters, {self.last:,} steps, on {device}")
        for note in recipe.notes:
            self.console.print(f"note: {note}", style="cyan")

    # While it runs

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Show a logged step."""
        now = time.perf_counter()
        if not self.started:
            self.started, self.first = now, step
        self.step, self.row = step, metrics
        self.losses.append(metrics["loss"])
        if self.plain:
            if not self._due(step, now):
                return
            self.console.print(
                f"step {step}/{self.last}  loss {metrics['loss']:.4f}  lr {metrics['lr']:.2e}  "
                f"{metrics['tokens_per_second']:,.0f} tokens/s  ETA {self._eta()}"
            )
        else:
            self._live().update(self._panel(run))

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """Show an evaluation, which stays on the screen."""
        self.validation = metrics
        if self.quiet and step < self.last:
            return
        bits = metrics.get("bits_per_byte")
        text = f"step {step}  validation loss {metrics['val_loss']:.4f}"
        error = metrics.get("val_loss_se")
        text += f" (standard error {error:.4f})" if error is not None else ""
        text += f"  {bits:.4f} bits a byte" if bits is not None else ""
        right = metrics.get("val_accuracy")
        text += f"  {right:.1%} of answers right" if right is not None else ""
        self.console.print(text, style=None if self.plain else "bold")

    def run_finished(self, run: Path, status: str) -> None:
        """Restore the terminal."""
        self._stop()

    def _live(self) -> Live:
        if self.live is None:
            self.live = Live(console=self.console, refresh_per_second=8, transient=True)
            self.live.start()
        return self.live

    def _stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def _panel(self, run: Path) -> Group:
        bar = Progress(
            TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:.0f}%"),
            TextColumn(f"ETA {self._eta()}"),
            expand=True,
        )
        bar.add_task("", total=self.last, completed=self.step)
        table = Table.grid(padding=(0, 3))
        cells = {
            "loss": f"{self.row['loss']:.4f}",
            "lr": f"{self.row['lr']:.2e}",
            "tokens/s": f"{self.row['tokens_per_second']:,.0f}",
            "grad norm": f"{self.row['grad_norm']:.2f}",
        }
        if self.validation:
            cells["validation"] = f"{self.validation['val_loss']:.4f}"
        table.add_row(*(Text(name, style="dim") for name in cells))
        table.add_row(*(Text(text, style="bold") for text in cells.values()))
        curve = Text(spark(self.losses, self.console.width - 2, self.glyphs), style="green")
        return Group(bar, table, curve, Text(f"in {run}; Ctrl-C saves and stops", style="dim"))

    def _eta(self) -> str:
        seconds = time.perf_counter() - self.started
        return eta(seconds, self.step - self.first, self.last - self.step)


def spark(values: list[float], width: int, glyphs: str = BARS) -> str:
    """A line of at most `width` bars, scaled from the smallest value to the largest."""
    if not values:
        return ""
    size = max(1, -(-len(values) // max(1, width)))
    means = [
        sum(part) / len(part)
        for part in (values[i : i + size] for i in range(0, len(values), size))
    ]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(glyphs[min(7, int((m - low) / span * 8))] for m in means)
