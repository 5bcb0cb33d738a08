"""Putting a run back where a checkpoint left it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strawberry.errors import StrawberryError
from strawberry.train import checkpoint, randomness
from strawberry.train.checkpoint import Checkpoint
from strawberry.train.recent import Recent

if TYPE_CHECKING:
    from strawberry.train.loop import Session

NEEDED = ("step", "random", "metrics", "recent", "optimizer", "scale", "best")
"""What the state of a checkpoint holds; without any one of them a resumed run would be another."""


def restore(session: Session, recent: Recent) -> list[str]:
    """Put a session where its newest whole checkpoint left it; returns what to warn of.

    A run that was killed before its first checkpoint starts over. Raises StrawberryError if a part
    is missing, or does not fit the recipe.
    """
    if not list(checkpoint.newest(session.run.checkpoints)):
        session.run.forget_after(0)
        return [f"{session.run.path}: nothing was saved yet; starting over"]
    found, warnings = checkpoint.load_newest(session.run.checkpoints)
    take(session, recent, found)
    session.run.forget_after(session.step)
    return warnings


def take(session: Session, recent: Recent, found: Checkpoint, *, optimizers: bool = True) -> None:
    """Put a session where a checkpoint left it; the optimizers start afresh if not `optimizers`.

    Raises StrawberryError if a part is missing, or does not fit the recipe.
    """
    if missing := [name for name in NEEDED if name not in found.state]:
        raise StrawberryError(f"{found.path}: has no {', '.join(missing)}")
    if "cpu" not in found.random:
        raise StrawberryError(f"{found.path}: has no state of torch's generator")
    try:
        session.model.load_state_dict(found.model)
        if optimizers:
            session.optimizers.load(found.optimizer, found.state["optimizer"])
        randomness.restore(found.state["random"], found.random)
        recent.load(found.state["recent"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StrawberryError(f"{found.path}: does not fit this recipe: {reason}") from error
    if optimizers:
        session.optimizers.loaded()
    session.optimizers.scale = found.state["scale"]
    session.step = found.state["step"]
    session.metrics = found.state["metrics"]
    session.best = found.state["best"]
