"""Tasks of the harness by name; what is wrong with them in one line."""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from strawberry.errors import StrawberryError


def load_tasks(names: Sequence[str], include_path: Path | None) -> Any:
    """The harness's tasks and groups of these names.

    Tasks of one's own in `include_path` go before the harness's, whose 14,000 are looked through
    only for a name that is not among them.

    Raises:
        StrawberryError: a task is unknown or wrong, or its data can't be had.
    """
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        raise StrawberryError(f"{include_path}: no such folder of tasks")
    with quiet(), told(names):
        manager = TaskManager(include_path=include_path, include_defaults=False)
        if not all(name in manager.task_index or Path(name).exists() for name in names):
            manager = TaskManager(include_path=include_path)
        for name in names:
            if name not in manager.task_index and not Path(name).exists():
                near = difflib.get_close_matches(name, manager.all_tasks, n=1, cutoff=0.6)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise StrawberryError(
                    f"unknown task {name!r}{hint}; `lm_eval ls tasks` lists all, and "
                    "--include-path reads tasks of your own"
                )
        return manager.load(list(names))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the harness's messages below errors, and without its progress bars."""
    from tqdm import std

    logger, before = logging.getLogger("lm_eval"), logging.getLogger("lm_eval").level
    made = std.tqdm.__init__

    def silent(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **{**kwargs, "disable": True})

    logger.setLevel(logging.ERROR)
    std.tqdm.__init__ = silent
    try:
        yield
    finally:
        std.tqdm.__init__ = made
        logger.setLevel(before)


@contextlib.contextmanager
def told(names: Sequence[str]) -> Iterator[None]:
    """Turn what the harness and its data library raise about tasks into one line."""
    try:
        yield
    except StrawberryError:
        raise
    except ConnectionError as error:
        raise StrawberryError(
            f"tasks {', '.join(names)}: their data is on the Hugging Face hub, which can't be "
            f"reached: {_line(error)}; tasks with files of your own need no network"
        ) from error
    except Exception as error:
        raise StrawberryError(
            f"tasks {', '.join(names)}: {type(error).__name__}: {_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
