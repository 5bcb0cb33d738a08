"""Plot loss and learning-rate curves of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from strawberry.errors import StrawberryError
from strawberry.runs.folder import RunFolder


def plot(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Plot the training loss, validation loss and learning rate of runs in one picture.

    With a router in a recursion, the share of tokens of each step is drawn too. The suffix of `out`
    chooses the format (.png, .svg, .pdf). Raises StrawberryError if a folder has no run, or if
    matplotlib is not installed.
    """
    runs = [(label, _rows(folder)) for label, folder in zip(labels(folders), folders, strict=True)]
    routed = any("step_1_share" in row for _, rows in runs for row in rows)
    figure, save = canvas(8, 7.5 if routed else 6)
    heights = [3, 1, 1.5][: 3 if routed else 2]
    loss_axes, rate_axes, *share_axes = figure.subplots(
        len(heights), 1, sharex=True, height_ratios=heights
    )
    for number, (name, rows) in enumerate(runs):
        color = f"C{number % 10}"
        training = [(row["step"], row["loss"], row["lr"]) for row in rows if "loss" in row]
        validation = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
        if training:
            steps, losses, rates = zip(*training, strict=True)
            label = f"{name}, training"
            loss_axes.plot(steps, losses, color=color, alpha=0.4, linewidth=1, label=label)
            rate_axes.plot(steps, rates, color=color, linewidth=1.5)
        if validation:
            steps, losses = zip(*validation, strict=True)
            label = f"{name}, validation: {losses[-1]:.3f}"
            loss_axes.plot(steps, losses, color=color, marker="o", markersize=4, label=label)
        for axes in share_axes:
            _draw_shares(axes, rows, color, name if len(runs) > 1 else "")
    loss_axes.set_ylabel("loss, nats per token")
    rate_axes.set_ylabel("learning rate")
    (share_axes[-1] if share_axes else rate_axes).set_xlabel("step")
    for axes in (loss_axes, rate_axes, *share_axes):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (loss_axes, *share_axes):
        axes.legend(frameon=False, fontsize="small")
    return save(out)


def labels(folders: Sequence[str | Path]) -> list[str]:
    """For each folder the shortest end of its absolute path that no other of the folders has.

    A folder that is named twice has its name twice.
    """
    paths = [Path(folder).absolute().resolve() for folder in folders]
    return [_label(path, set(paths) - {path}) for path in paths]


def _label(path: Path, others: set[Path]) -> str:
    for length in range(1, len(path.parts)):
        end = path.parts[-length:]
        if all(other.parts[-length:] != end for other in others):
            return "/".join(end)
    return str(path)


def _rows(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's log; raises StrawberryError if there are none."""
    if not Path(folder).is_dir():
        raise StrawberryError(f"{folder}: there is no such folder")
    if rows := RunFolder(folder).metrics():
        return rows
    raise StrawberryError(f"{folder}: has no rows in metrics.jsonl")


def canvas(width: float, height: float) -> tuple[Any, Callable[[str | Path], Path]]:
    """An empty figure of that size in inches, and a function that writes it to a file.

    Raises StrawberryError if matplotlib is not installed; the function does if the file can't be
    written, or its suffix is unknown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "plots need matplotlib: pip install 'strawberry-lab[plot]'"
        raise StrawberryError(message) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # attaches a canvas without pyplot, so no display is needed

    def save(out: str | Path) -> Path:
        path = Path(out)
        try:
            figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise StrawberryError(f"{path}: can't write: {error}") from error
        return path

    return figure, save


def _draw_shares(axes: Any, rows: Sequence[dict[str, Any]], color: str, name: str) -> None:
    """The share of tokens in each recursion step, a line for each, fainter with depth."""
    axes.set_ylabel("share of tokens")
    axes.set_ylim(0, 1.05)
    depth = 0
    while any(f"step_{depth + 1}_share" in row for row in rows):
        depth += 1
    for number in range(1, depth + 1):
        key = f"step_{number}_share"
        steps, shares = zip(*((r["step"], r[key]) for r in rows if key in r), strict=True)
        label = f"{name}, " if name else ""
        fade = 1 - 0.7 * (number - 1) / max(1, depth - 1)
        axes.plot(steps, shares, color=color, alpha=fade, label=f"{label}recursion step {number}")
