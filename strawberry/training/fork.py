"""A new run that starts from another run's checkpoint, with its own recipe or data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strawberry.errors import StrawberryError
from strawberry.recipe import load_recipe
from strawberry.runs.folder import RunFolder
from strawberry.training.recent import RecentSums
from strawberry.training.restore import newest_of, take

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe
    from strawberry.training.session import Session


def fork(session: Session, recent: RecentSums, parent: RunFolder, step: int | None = None) -> None:
    """Start the session's run from a checkpoint of `parent`, the newest or that after `step`.

    Weights, generators and the rows of the log are copied; so is the state of the optimizers, if
    the recipe has the same ones. run.json names the parent, the step and the differences.

    Raises:
        StrawberryError: `parent` has no such checkpoint, its weights don't fit, or it has done as
            many steps as the recipe wants.
    """
    if not parent.exists:
        raise StrawberryError(f"{parent.path}: is not a run folder, so it can't be forked")
    recipe, run = session.recipe, session.run
    before = load_recipe(parent.path, plugins=recipe.plugins)
    checkpoint, warnings = newest_of(RunFolder(parent.path, run.world), session, step)
    same = (
        _optimizer(before) == _optimizer(recipe) and checkpoint.state.get("optimizer") is not None
    )
    averaged = before.averaging == recipe.averaging
    take(session, recent, checkpoint, optimizers=same, averages=averaged)
    if session.step >= recipe.train.max_iters:
        raise StrawberryError(
            f"{parent.path}: has done {session.step} steps; train.max_iters "
            f"{recipe.train.max_iters} must be more"
        )
    session.best = None  # its checkpoint is in the parent
    for line in warnings:
        session.warn(line)
    if not same:
        session.warn("the optimizers differ from those of the parent run; their state starts empty")
    run.take_log(parent, session.step)
    if not averaged:
        session.warn("the averages differ from those of the parent run; they start empty")
    # Before the folder is a run: without a checkpoint, a resume would start over.
    with session.optimizers.evaluating():
        session.write(recent)
    session.engine.settle()
    changes = parent.changes(recipe, session.dataset)
    origin = {"of": str(parent.path), "step": session.step, "changes": changes}
    run.begin(recipe, session.dataset, session.machine, origin)


def _optimizer(recipe: Recipe) -> Any:
    return recipe.to_dict()["optimizer"]
