"""Loss and learning-rate curves of runs, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from strawberry.errors import StrawberryError
from strawberry.train.run import RunFolder


def plot(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Draw the training loss, validation loss and learning rate of runs into one picture.

    The ending of `out` chooses the format (.png, .svg, .pdf). Raises StrawberryError if a folder
    holds no run, or if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "plots need matplotlib: pip install 'strawberry-lab[plot]'"
        raise StrawberryError(message) from error
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for number, folder in enumerate(folders):
        rows = RunFolder(folder).metrics()
        if not rows:
            raise StrawberryError(f"{folder}: there is no metrics.jsonl with a row in it")
        color, name = f"C{number % 10}", Path(folder).name
        training = [(row["step"], row["loss"], row["lr"]) for row in rows if "loss" in row]
        validation = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
        if training:
            steps, losses, rates = zip(*training, strict=True)
            top.plot(steps, losses, color=color, alpha=0.4, linewidth=1, label=f"{name}, training")
            bottom.plot(steps, rates, color=color, linewidth=1.5)
        if validation:
            steps, losses = zip(*validation, strict=True)
            label = f"{name}, validation: {losses[-1]:.3f}"
            top.plot(steps, losses, color=color, marker="o", markersize=4, label=label)
    top.set_ylabel("loss, nats a token")
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("step")
    for axes in (top, bottom):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    top.legend(frameon=False, fontsize="small")
    path = Path(out)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise StrawberryError(f"{path}: can't be written: {error}") from error
    return path
