"""A run's evaluations: when they are due, what they record, and when the referee measures."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from strawberry.referee.weights import bits, moved
from strawberry.training.account import Rows
from strawberry.training.evaluate import measure_all, validate
from strawberry.training.items import item_keeper, keeper
from strawberry.training.recent import RecentSums
from strawberry.training.refereed import glance, referee
from strawberry.training.session import Session

if TYPE_CHECKING:
    from strawberry.recipe.spec import ComponentSpec, Recipe

LONG = 200
"""Minimum number of steps of a run that the referee measures twice."""


def due(step: int, interval: int) -> bool:
    """Return whether an event every `interval` steps (0: never) is due at this step."""
    return interval > 0 and step % interval == 0


def measured(recipe: Recipe, step: int) -> bool:
    """Return whether a run is evaluated after this step."""
    return due(step, recipe.train.eval_interval) or step == recipe.train.max_iters


def measure(session: Session, recent: RecentSums) -> bool:
    """Evaluate after a step; True for a best one, to be saved.

    An evaluation can fail where training did not, for example for lack of memory. Then the trained
    state is saved, and a resumed run begins with the evaluation.
    """
    recent.pause()
    try:
        best = evaluate(session)
    except Exception:
        if session.world.size == 1:  # ranks save together, and fail one by one
            with contextlib.suppress(Exception):  # what failed first is what is told
                session.save(recent)
        raise
    recent.go_on()
    return best


def evaluate(session: Session) -> bool:
    """Measure and report the validation loss; True for a best one, to be kept."""
    run, step = session.run, session.step
    write = keeper(run.rows / f"{step:09d}.npz", session.batches)

    def keep(nats: Sequence[float], targets: Sequence[int]) -> None:
        session.row_nats = nats
        write(nats, targets)

    with session.optimizers.evaluating():
        recipe, before = session.recipe, bits(session.model)
        session.metrics = validate(session.engine, session.batches, session.machine, keep=keep)
        rows = session.batches.evaluated
        before = _note_changes(session, before, "the model's own passes")
        items = item_keeper(run.rows, step, session.world)
        more = measure_all(session.engine, session.batches, session.machine, keep=items)
        before = _note_changes(session, before, f"measures ({_names(recipe.measures)})")
        more |= _averaged(session)
        _note_changes(session, before, f"averages ({_names(recipe.averaging)})")
        session.metrics |= {
            name: value for name, value in more.items() if name not in session.metrics
        }
        _let_look(session, rows)
    session.measured[step] = dict(session.metrics)
    session.log({"step": step, **session.metrics})
    session.tell("evaluated", run.path, step, session.metrics)
    return session.recipe.train.keep_best and _is_best(session)


def _note_changes(session: Session, before: dict[str, int], whose: str) -> dict[str, int]:
    """Note parameters that an evaluation has changed; returns what they are now."""
    after = bits(session.model)
    session.noticed += [
        f"{name} is changed in an evaluation, by {whose}" for name in moved(before, after)
    ]
    return after


def _names(specs: Sequence[ComponentSpec]) -> str:
    return ", ".join(spec.use for spec in specs)


def _averaged(session: Session) -> dict[str, float]:
    """The metrics of each average of the weights: `val_loss_NAME` and the others."""
    told = dict[str, float]()
    for name in session.averages.by_name:
        with session.averages.using(name, session.step):
            metrics = validate(session.engine, session.batches, session.machine)
        told |= {f"{metric}_{name}": value for metric, value in metrics.items()}
    return told


def _let_look(session: Session, rows: Rows) -> None:
    """Let the referee measure, at the last evaluation, and in a long run at the first one too.

    It takes about as long as two steps. At the others the first rows alone are measured again.
    """
    steps = session.recipe.train.max_iters
    if session.step == steps or (steps >= LONG and not session.refereed):
        referee(session, rows)
        session.refereed = True
    else:
        glance(session, rows)


def _is_best(session: Session) -> bool:
    """Return whether no evaluation of the run was better; records it as the best one."""
    loss = session.world.gather(session.metrics["val_loss"])[0]  # all save, or none
    if not math.isfinite(loss) or (session.best is not None and loss >= session.best["val_loss"]):
        return False
    session.best = {"step": session.step, "val_loss": loss}
    return True
