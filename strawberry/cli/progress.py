"""Progress of slow work on data: a live bar on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from strawberry.cli.console import animates, console


@contextlib.contextmanager
def shown() -> Iterator[Callable[[str, int, int | None], None]]:
    """A callback that shows progress on stderr, as for `open_dataset(recipe, progress=...)`."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    if not animates(sys.stderr):
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:<18}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    size = bars.tasks[earlier].total or bars.tasks[earlier].completed or 1
                    bars.update(earlier, total=size, completed=size)
                    bars.stop_task(earlier)
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield show
        for task in tasks.values():
            size = bars.tasks[task].total or bars.tasks[task].completed or 1
            bars.update(task, total=size, completed=size)


class _Lines:
    """Print a line when a stage begins."""

    def __init__(self) -> None:
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage != self._stage:
            self._stage = stage
            size = "" if total is None else f" {total / 1e6:.1f} MB"
            sys.stderr.write(f"{stage}{size}\n")
