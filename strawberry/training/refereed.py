"""The referee's measurements of a run, at its first and last evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.data.overlap import known_overlap
from strawberry.files.atomic import write_atomic
from strawberry.model.mode import in_mode
from strawberry.model.risks import declarations, declares
from strawberry.referee.dependence import NOISE, SEED, Breach, Run, outputs
from strawberry.referee.draws import draws
from strawberry.referee.judged import judge
from strawberry.referee.losses import ROUNDING, bound_breach, targets_breach
from strawberry.referee.places import named, recorded, suspects
from strawberry.referee.terms import taken
from strawberry.training.account import Rows, account, again

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strawberry.training.batches import EvaluationRows
    from strawberry.training.session import Session

MUCH = 0.05
"""Share of validation windows in the training text from which on a warning appears."""
_ROWS = 2
"""Number of rows whose loss is computed again from the logits."""


def referee(session: Session, evaluated: Rows) -> None:
    """Measure the dependences of the validation loss; forbidden ones are reported and recorded.

    Everything runs as in `validate`: the same rows, compiled and cast alike. Several ranks run the
    same passes together, each with its own rows.

    Args:
        session: the run.
        evaluated: inputs and targets of the evaluation's batches, on this rank.
    """
    before, model = session.run.breaches(), session.model
    with in_mode(model, training=False):
        counted, excused = account(session, evaluated)
        run, rows = _run(session), _rows(session)
        measured = [*_breaches(session, run, rows), *_of_averages(session, run, rows)]
        drawn = draws(model, run, rows.x[:1])
        looked = (*counted, *measured, *again(session, evaluated))
    own = [*session.noticed, *map(str, looked)]
    breaches = sorted({*before, *(line for lines in session.world.gather(own) for line in lines)})
    excused = [line for lines in session.world.gather(excused) for line in lines]
    if session.world.main:
        content = {
            "step": session.step,
            "breaches": breaches,
            "declared": [*declarations(session.recipe, model), *dict.fromkeys(excused)],
            "draws": drawn,
            "overlap": session.run.judgement().get("overlap") or _overlap(session),
        }
        write_atomic(session.run.referee_file, json.dumps(content, indent=1) + "\n")
    for line in drawn:
        session.warn(f"{line} draws random numbers in evaluation, so losses are noisy")
    for line in breaches:
        if line not in before:
            session.warn(f"the validation loss can't be trusted: {line}")


def glance(session: Session, evaluated: Rows) -> None:
    """Measure the first rows of an evaluation again, for the referee's report."""
    with in_mode(session.model, training=False):
        session.noticed += map(str, again(session, evaluated))


def _overlap(session: Session) -> dict[str, float] | None:
    """Share of the validation text that is in the training text too, with a warning if it is large.

    With a tokenizer texts are compared, in altered forms too; else ids.
    """
    measured = known_overlap(session.dataset)
    if measured is None:
        return None
    share = measured.near if measured.disguised is None else measured.disguised
    if max(share, measured.copies) > MUCH:
        guise = "" if measured.disguised is None else ", up to whitespace, case and names"
        session.warn(
            f"{max(share, measured.copies):.0%} of the validation text is in the training "
            f"text too{guise} ({measured.copies:.0%} verbatim)"
        )
    return asdict(measured)


def _rows(session: Session) -> EvaluationRows:
    """This rank's part of the first validation rows, a batch of them on each rank."""
    return session.batches.val(0, session.recipe.train.batch_size * session.world.size)


def _run(session: Session) -> Run:
    """Maps ids to hidden states, compiled and cast as in the run."""

    def run(ids: Tensor) -> Tensor:
        with session.machine.autocast():
            return session.engine.hidden(ids)

    return run


def _judged(session: Session, run: Run, rows: EvaluationRows, *, pieces: bool) -> list[Breach]:
    """What `judge` says of the model as it is, with the ranks' agreement."""
    return judge(
        session.model,
        run,
        rows.x,
        seed=session.recipe.seed + session.step,
        dtype=session.machine.dtype,
        agree=lambda own: bool(session.world.most(own)),
        pieces=pieces,
    )


@torch.no_grad()
def _breaches(session: Session, run: Run, rows: EvaluationRows) -> list[Breach]:
    model, machine = session.model, session.machine
    pieces = not machine.compiled  # another shape is another graph
    breaches: list[Breach | None] = [*_judged(session, run, rows, pieces=pieces)]
    vocab_size = model.vocab_size
    ids = rows.x[:_ROWS]
    engine, dtype = session.engine, machine.dtype
    with machine.autocast():
        loss = (
            targets_breach(_nats(session), engine.logits, ids, vocab_size, dtype)
            if model.objective.left_to_right
            else bound_breach(
                engine.predictions, ids, vocab_size, dtype, causal=declares(model, "causal")
            )
        )
        breaches += taken(model, ids[:1])
    breaches.append(loss and replace(loss, place=suspects(model)))
    breaches.append(_ranks_breach(session, run))
    return [breach for breach in breaches if breach is not None]


def _of_averages(session: Session, run: Run, rows: EvaluationRows) -> list[Breach]:
    """Forbidden dependences of the model with each average of its weights."""
    breaches = []
    for name in session.averages.by_name:
        with session.averages.using(name, session.step):
            seen = _judged(session, run, rows, pieces=False)
        breaches += [replace(b, detail=f"with the average {name}: {b.detail}") for b in seen]
    return breaches


def _nats(session: Session) -> Callable[[Tensor, Tensor], Tensor]:
    """Maps ids and targets to the sum of losses of an evaluation."""
    return lambda x, y: session.engine.measure(x, y).rows.sum()


def _ranks_breach(session: Session, run: Run) -> Breach | None:
    """Find different outputs of ranks for the same tokens: unshared state."""
    world, vocab_size = session.world, session.recipe.model.vocab_size
    if world.size == 1:
        return None
    generator = torch.Generator().manual_seed(session.step)
    ids = torch.randint(vocab_size, (1, session.recipe.model.block_size), generator=generator)
    ids = ids.to(session.machine.device)
    noise = ROUNDING * NOISE[session.machine.dtype]
    if not _apart(world.gather(_sums(outputs(run, ids))), noise):
        return None
    with recorded(session.model) as components:
        outputs(run, ids)
    every = world.gather([(call.path, _sums(y)) for call in components for y in call.result])
    ours = (rows[0][0] for rows in zip(*every, strict=False) if _apart([r[1] for r in rows], noise))
    path = next(ours, "")
    place = named(path, session.model.get_submodule(path)) if path else ""
    detail = "ranks have different outputs for the same tokens, so their models differ"
    return Breach("history", 1.0, detail, place) if world.main else None


def _sums(y: Tensor) -> tuple[float, float]:
    """The sum of all numbers with random weights, and of their sizes; a norm fixes plain sums."""
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED))
    y = y.double()
    return float((y * weights.to(y)).sum()), float(y.abs().sum())


def _apart(sums: Sequence[tuple[float, float]], noise: float) -> bool:
    """Return whether sums over the same outputs differ by more than rounding."""
    totals, sizes = zip(*sums, strict=True)
    return not max(totals) - min(totals) <= noise * max(*sizes, 1e-30)
