"""The referee's look at a run: at its first evaluation, and at its last."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.contracts.data import SPLITS
from strawberry.data.overlap import overlap
from strawberry.model.risks import noncausal
from strawberry.referee.dependence import Breach, outputs
from strawberry.referee.judged import judge, loss_breach
from strawberry.train.run import write_atomic

if TYPE_CHECKING:
    from strawberry.train.session import Session

MUCH = 0.05
"""The share of validation windows in the training text from which on it is told."""
_ROWS = 2
"""Rows whose loss is computed again, from the logits."""


def referee(session: Session) -> None:
    """Measure what the validation loss depends on; what must not be is told, and written down.

    Everything runs as it does in `validate`: the same rows, compiled and cast alike. Parameters in
    shards are not looked at: their model can only be asked for a loss.
    """
    if session.recipe.train.parallel == "fsdp" and session.world.size > 1:
        return
    before, model = session.run.breaches(), session.model
    was_training = model.training
    model.eval()
    own = [str(breach) for breach in _breaches(session)]
    model.train(was_training)
    breaches = sorted({*before, *(line for lines in session.world.gather(own) for line in lines)})
    if session.world.main:
        content = {
            "step": session.step,
            "breaches": breaches,
            "declared": noncausal(session.recipe, model),
            "overlap": session.run.judgement().get("overlap") or _overlap(session),
        }
        write_atomic(session.run.referee_file, json.dumps(content, indent=1) + "\n")
    for line in breaches:
        if line not in before:
            session.warn(f"the validation loss can't be believed: {line}")


def _overlap(session: Session) -> dict[str, float] | None:
    """How much of the validation text is training text too; told where it is much."""
    train, val = (session.dataset.arrays(split) for split in SPLITS)
    measured = overlap(train, val) if train is not None and val is not None else None
    if measured is None:
        return None
    if measured.near > MUCH:
        session.warn(
            f"{measured.near:.0%} of the validation text stands in the training text too (of "
            f"{measured.windows} windows, {measured.copies:.0%} to the letter)"
        )
    return asdict(measured)


@torch.no_grad()
def _breaches(session: Session) -> list[Breach]:
    model, machine, recipe = session.model, session.machine, session.recipe

    def run(ids: Tensor) -> Tensor:
        with machine.autocast():
            return model.trunk(ids)[0]

    rows = session.batches.val(0, recipe.train.batch_size * session.world.size)
    breaches = judge(model, run, rows.x, seed=recipe.seed + session.step, dtype=machine.dtype)
    x, y = rows.x[:_ROWS], rows.y[:_ROWS]
    if bool((y >= 0).any()):
        with machine.autocast():
            nats = session.engine.measure(x, y).cross_entropy
        logits = model.head_logits(outputs(run, x))
        breach = loss_breach(logits, y, float(nats), machine.dtype)
        breaches += [breach] if breach is not None else []
    return breaches
