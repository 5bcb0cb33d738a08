"""`strawberry eval RUN --tasks`: scores of tasks, which a plugin computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from strawberry.errors import PluginError, StrawberryError

if TYPE_CHECKING:
    from strawberry.generation.load import LoadedRun
    from strawberry.plugin import Plugins, TaskOptions

HOOK = "strawberry_task_scores"
_ERROR = "_stderr"


def scores(
    run: LoadedRun,
    tasks: str,
    depths: Sequence[int | None],
    options: TaskOptions,
    plugins: Plugins,
) -> list[dict[str, Any]]:
    """The scores of each task and depth, as rows with their metrics.

    Raises StrawberryError if no plugin scores tasks, or several do.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise StrawberryError("--tasks: expected names, separated by commas")
    rows = []
    for depth in depths:
        if depth is not None:
            run.model.set_steps(depth)
        answered = _one(plugins.ask(HOOK, run=run, tasks=names, options=options))
        for task, metrics in answered.items():
            row: dict[str, Any] = {"task": task, "step": run.step}
            rows.append(row | ({} if depth is None else {"recursion_steps": depth}) | {**metrics})
    return rows


def _one(answers: Sequence[tuple[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """The only answer."""
    if not answers:
        raise StrawberryError(
            "--tasks: no installed plugin scores tasks; `pip install strawberry-lm-eval` does, by "
            "lm-evaluation-harness"
        )
    if len(answers) > 1:
        names = " and ".join(repr(name) for name, _ in answers)
        raise PluginError(f"plugins {names} both score tasks; `--no-plugin NAME` leaves one out")
    ((name, answer),) = answers
    if not isinstance(answer, Mapping):
        raise PluginError(f"plugin {name!r}: {HOOK} answered {type(answer).__name__}")
    return answer


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with a line for each metric."""
    from strawberry.cli.console import show as print_table, table

    deep = any("recursion_steps" in row for row in rows)
    columns = ["task", *(["steps"] if deep else []), "metric", "value", "standard error"]
    printed = table(*columns)
    for row in rows:
        for name, value in row.items():
            if name in ("task", "step", "recursion_steps") or name.endswith(_ERROR):
                continue
            error = row.get(name + _ERROR)
            steps = [str(row["recursion_steps"])] if deep else []
            printed.add_row(row["task"], *steps, name, _number(value), _number(error))
    print_table(printed)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)
