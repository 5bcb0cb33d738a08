"""Restore a run from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.errors import StrawberryError
from strawberry.runs import checkpoint, randomness
from strawberry.runs.checkpoint import Checkpoint
from strawberry.runs.folder import RunFolder
from strawberry.training.recent import RecentSums

if TYPE_CHECKING:
    from strawberry.training.session import Session

NEEDED = ("step", "random", "metrics", "recent", "optimizer", "scale", "best")
"""Required state of a checkpoint; without any one a resumed run would differ."""


def restore(session: Session, recent: RecentSums) -> list[str]:
    """Restore a session from its newest intact checkpoint; returns warnings.

    A run that was killed before its first checkpoint starts again. Raises StrawberryError if a part
    is missing, or does not fit the recipe.
    """
    run = session.run
    session.engine.settle()
    if not run.has_checkpoint():
        run.forget_after(0)
        return [f"{run.path}: nothing was saved yet; starting from step 0"]
    loaded, warnings = newest_of(run, session)
    take(session, recent, loaded)
    run.forget_after(session.step)
    return warnings


def newest_of(
    run: RunFolder, session: Session, step: int | None = None
) -> tuple[Checkpoint, list[str]]:
    """The newest intact checkpoint of `run`, of which each rank reads its part; and warnings.

    With a `step` it is the checkpoint after that. One rank verifies it for all. Raises
    StrawberryError if there is none.
    """
    path, files, warnings = run.newest_checkpoint() if step is None else run.checkpoint_of(step)
    like = dict(session.model.named_parameters())
    return checkpoint.read(path, files, like), warnings


def take(
    session: Session,
    recent: RecentSums,
    checkpoint: Checkpoint,
    *,
    optimizers: bool = True,
    averages: bool = True,
) -> None:
    """Put a session where a checkpoint left it, without `optimizers` or `averages` if so asked.

    Raises StrawberryError if a part is missing, or does not fit the recipe.
    """
    if missing := [name for name in NEEDED if name not in checkpoint.state]:
        raise StrawberryError(f"{checkpoint.path}: has no {', '.join(missing)}")
    if "0/cpu" not in checkpoint.random:
        raise StrawberryError(f"{checkpoint.path}: has no state of torch's generator")
    try:
        session.engine.load(checkpoint.model)
        if optimizers:
            session.optimizers.load(checkpoint.optimizer, checkpoint.state["optimizer"])
        if averages:
            session.averages.load(checkpoint.optimizer)
        recent.load(checkpoint.state["recent"])
        step, random = checkpoint.state["step"], checkpoint.state["random"]
        randomness.restore_rank(session.world, step, random, checkpoint.random)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StrawberryError(f"{checkpoint.path}: does not fit this recipe: {reason}") from error
    if optimizers:
        session.optimizers.loaded()
    session.optimizers.scale = checkpoint.state["scale"]
    session.step = step
    session.metrics = checkpoint.state["metrics"]
    session.best = checkpoint.state["best"]
