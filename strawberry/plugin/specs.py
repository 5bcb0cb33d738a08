"""The hooks: events and requests that a plugin receives.

An implementation may omit arguments that it does not need. Within one `API_VERSION` hooks only gain
arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from strawberry.plugin.kinds import Kinds
    from strawberry.plugin.registry import Registrar

API_VERSION: Final = 1
"""Incremented when a hook or a contract changes in a way that breaks plugins."""

GROUP: Final = "strawberry"
"""The entry-point group, and the prefix of every hook's name."""

hookimpl = pluggy.HookimplMarker(GROUP)
_hookspec = pluggy.HookspecMarker(GROUP)


@_hookspec
def strawberry_kinds(kinds: Kinds) -> None:
    """Add kinds of components, before any component: `kinds.add(ComponentKind(...))`."""


@_hookspec
def strawberry_register(registry: Registrar) -> None:
    """Register components by name: `registry.attention("hyena", "my_package.hyena:Hyena")`."""


@_hookspec
def strawberry_recipe_tree(tree: Any, path: Path) -> tuple[Any, list[str]] | None:
    """Read a file of another program as a recipe.

    Asked of a file that is YAML or JSON, holds a mapping, and has neither `model` nor `extends`.

    Args:
        tree: what the file holds, a `strawberry.recipe.Node`: each value knows its line.
        path: the file.

    Returns:
        The recipe as such a tree, whose values keep their locations, and notes on the
        interpretation; None for a file of another kind.

    Raises:
        RecipeError: the file is this plugin's, and something in it can't be honoured.
    """


@_hookspec
def strawberry_task_scores(
    run: Any, tasks: Sequence[str], options: TaskOptions
) -> Mapping[str, Mapping[str, Any]] | None:
    """Score a run on tasks of a benchmark library: `strawberry eval RUN --tasks NAMES`.

    Args:
        run: a `strawberry.generation.LoadedRun`, whose model has the depth that was asked for.
        tasks: their names.
        options: the other options of the command.

    Returns:
        The metrics of each task by name, and their standard errors as `NAME_stderr`.

    Raises:
        StrawberryError: a task is unknown, or its items can't be had.
    """


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How `strawberry eval --tasks` scores a run.

    Attributes:
        include_path: a folder with tasks of one's own.
        fewshot: examples before each question; None takes the task's number.
        limit: the first items of each task only; None for all.
        batch_size: sequences that are computed together.
        cache: whether answers are kept in the cache folder, and taken from there.
        samples: a folder for the items with their answers, a JSON Lines file a task.
    """

    include_path: Path | None = None
    fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 16
    cache: bool = False
    samples: Path | None = None


@_hookspec
def strawberry_model_built(model: Any, recipe: Any) -> None:
    """A model was built for training; the first step has not started."""


@_hookspec
def strawberry_step_done(run: Path, step: int, metrics: Mapping[str, float]) -> None:
    """A step's metrics were logged."""


@_hookspec
def strawberry_evaluated(run: Path, step: int, metrics: Mapping[str, float]) -> None:
    """The model was evaluated."""


@_hookspec
def strawberry_checkpoint_saved(run: Path, step: int, path: Path) -> None:
    """A complete checkpoint is on disk at `path`."""


@_hookspec
def strawberry_run_finished(run: Path, status: str) -> None:
    """The run ended: `finished`, `interrupted` or `failed`."""
