"""The manifest: what this plugin registers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strawberry.plugin import Registrar, hookimpl

strawberry_api = ">=1,<2"


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register the measure, and the command `strawberry tasks`."""
    registry.measure("lm_eval", "strawberry_lm_eval.measure:TaskScores")
    registry.command("tasks", "strawberry_lm_eval.cli:tasks", "Suggest tasks for a model's size.")


@hookimpl(optionalhook=True)
def strawberry_task_scores(
    run: Any, tasks: Sequence[str], options: Any
) -> Mapping[str, Mapping[str, Any]]:
    """Score a run: `strawberry eval RUN --tasks NAMES`."""
    from strawberry_lm_eval.scoring import score_run

    return score_run(run, tasks, options)
