"""Recount a run's evaluation: rows, tokens, bytes and losses, and readers of its text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from strawberry.files.atomic import write_atomic
from strawberry.model.risks import declares
from strawberry.referee.counted import Evaluated, counted_breaches
from strawberry.referee.dependence import NOISE, Breach
from strawberry.referee.foreign import files_of, files_of_model, replaced
from strawberry.referee.places import suspects
from strawberry.runs import randomness

if TYPE_CHECKING:
    from strawberry.contracts.data import Ids
    from strawberry.training.session import Session

Rows: TypeAlias = "Sequence[tuple[Ids, Ids]]"
"""Inputs and targets (B, T) of each batch of an evaluation."""


def account(session: Session, rows: Rows) -> tuple[list[Breach], list[str]]:
    """Errors in the counts of the last evaluation, and declared deviations.

    Called by all ranks, each with its own rows.
    """
    evaluated, none = _evaluated(session, rows), (list[Breach](), list[str]())
    counted = counted_breaches(session.dataset, evaluated) if session.world.main else none
    breaches, declared = counted
    return [*breaches, *_code(session)], declared


def tampered(session: Session) -> list[str]:
    """Find and record differences of log and measurements, after all trackers were called."""
    run, lines = session.run, []
    if not session.world.main:
        return []
    for row in run.metrics():
        measured = session.measured.get(int(row["step"])) if "val_loss" in row else None
        if measured is not None and row != {"step": row["step"], **measured}:
            lines.append(
                f"{run.metrics_file.name}: step {row['step']} has val_loss {row['val_loss']} where "
                f"{measured['val_loss']} was measured"
            )
    if lines and (judgement := run.judgement()):
        judgement["breaches"] = sorted({*judgement["breaches"], *lines})
        write_atomic(run.referee_file, json.dumps(judgement, indent=1) + "\n")
    return lines


def _evaluated(session: Session, rows: Rows) -> Evaluated:
    """The rows of all ranks in the evaluation, and their results."""
    batches, recipe, world = session.batches, session.recipe, session.world
    x, y = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    kept = (y >= 0).any(1)  # the others fill up ranks that have no row
    every = world.gather((x[kept], y[kept]))
    trained = [np.concatenate([a, b[:, -1:]], 1) for a, b in batches.trained]
    return Evaluated(
        x=np.concatenate([inputs for inputs, _ in every]),
        y=np.concatenate([targets for _, targets in every]),
        nats=session.row_nats,
        metrics=session.metrics,
        trained=np.concatenate(trained) if trained else x[:0],
        data=recipe.data.use,
        tokenizer=recipe.tokenizer.use,
    )


@torch.no_grad()
def again(session: Session, rows: Rows) -> Iterator[Breach]:
    """Measure the first rows again, and compare their losses.

    A component that behaves differently while the referee measures, or changes by being evaluated,
    is found here. So this comes last. All ranks call it, each with its own rows.
    """
    world, batches, size = session.world, session.batches, session.recipe.train.batch_size
    size = min(size, len(session.row_nats))
    mine = world.share(range(size))
    batch = batches.val(0, size)
    if not np.array_equal(batches.evaluated[0][0], rows[0][0]):
        detail = "the first rows of validation are others when they are asked for again"
        yield Breach("text", 1.0, detail, f"data {session.recipe.data.use}")
    with randomness.held(session.machine.device), session.machine.autocast():
        loss = session.engine.measure(batch.x, batch.y, batch.numbers)
    before = np.asarray(session.row_nats[mine.start : mine.stop])
    after = np.asarray(loss.rows[: batch.rows].tolist())
    if not declares(session.model, "stateless") or not mine:
        return
    size_of = np.abs(before - after) / np.maximum(np.abs(before), 1e-6)
    if not size_of.max() <= NOISE[session.machine.dtype]:
        row = int(size_of.argmax())
        detail = (
            f"row {mine.start + row} of validation has a loss of {before[row]:.6g} nats in "
            f"evaluation and of {after[row]:.6g} when it is measured again"
        )
        yield Breach("history", float(size_of.max()), detail, suspects(session.model))


def _code(session: Session) -> Iterator[Breach]:
    """Find components that replace their judges, or read the text by which they are judged."""
    parts: list[object] = [session, session.engine, session.batches, session.machine, session.world]
    parts += [session.run, session.optimizers, session.dataset, *session.model.modules()]
    files = dict.fromkeys([*files_of(session.recipe.plugins), *files_of_model(session.model)])
    yield from replaced(files, parts)
    for line in session.readers.lines:
        yield Breach("code", 1.0, f"the validation split is read by {line}")
