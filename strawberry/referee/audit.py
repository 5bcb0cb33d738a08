"""An audit of a model: every forbidden dependence, in every way in which the model is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from strawberry.errors import StrawberryError
from strawberry.model.risks import declares
from strawberry.referee.aging import aged_breach, late_breach, stepped_breach
from strawberry.referee.dependence import (
    NOISE,
    Breach,
    Kind,
    Limits,
    Run,
    compared,
    cuts,
    difference,
    gradient_breach,
    outputs,
    pairs,
)
from strawberry.referee.draws import draws
from strawberry.referee.foreign import files_of_model, replaced
from strawberry.referee.losses import ROUNDING, bound_breach, logged_breach, targets_breach
from strawberry.referee.places import first_difference, suspects
from strawberry.referee.recomputing import recomputing_breach
from strawberry.referee.situations import Situation, disturbed, lonely, original, plain, special
from strawberry.referee.terms import taken
from strawberry.referee.writes import left_by

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

DECLARED: Final[dict[Kind, str]] = {
    "future": "causal",
    "batch": "batch_independent",
    "history": "stateless",
}
"""The attribute by which a component declares that it has no such dependence."""
KINDS: Final = tuple(DECLARED)
DENSE: Final = 257
"""Up to this length every position is a cut: one token in a hundred that cheats is seen."""
CUTS: Final = 12
"""Cuts in a longer sequence."""
FEW: Final = 4
"""Cuts in a sequence of a model of more than `SMALL` parameters."""
SMALL: Final = 3_000_000
ROWS: Final = 32
"""Sequences of a batch."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One thing that was measured.

    Attributes:
        kind: on what the outputs must not depend.
        situation: how the model ran, such as `in training`.
        length: tokens of the sequences.
        declared: whether a component of the model declares this dependence.
        breach: what was found, if anything.
        refusal: why the model can't run so, in its own words; then nothing was measured.
    """

    kind: Kind
    situation: str
    length: int
    declared: bool
    breach: Breach | None
    refusal: str = ""


def audit(
    model: LanguageModel,
    lengths: Sequence[int],
    *,
    kinds: Sequence[Kind] = KINDS,
    compiled: bool = True,
) -> Iterator[Measurement]:
    """Measure every kind of dependence in every way in which the model runs.

    Args:
        model: a model on any device, left as it is. Its weights are disturbed in a copy, so that a
            gate at zero hides nothing.
        lengths: tokens of the sequences. All are tried in training and evaluation; the other ways
            (recursion depths, documents, cache, bfloat16, compiled) take the shortest.
        kinds: what is asked for.
        compiled: whether the compiled form is looked at too, which takes most of the time.
    """
    copy = disturbed(model)
    most = CUTS if sum(p.numel() for p in model.parameters()) < SMALL else FEW
    longest_first = sorted(lengths, reverse=True)
    usual = chain(
        ((s, longest_first) for s in plain(copy)),
        ((s, longest_first[-1:]) for s in original(model)),
    )
    others = ((s, longest_first[-1:]) for s in special(copy, compiled=compiled))
    look = partial(_in_situation, kinds=kinds, most=most)
    for situation, tried in usual:
        yield from look(situation, tried)
    if "future" in kinds:  # what takes little time comes before what takes more
        yield from _losses(copy, longest_first[-1])
    for situation, tried in others:
        yield from look(situation, tried)
    if "batch" in kinds:
        yield _alone(copy, longest_first[-1])
    if "future" in kinds:
        yield _gradients(copy, longest_first[0], most)
        yield from _code(model)
    if "history" in kinds:
        yield _recomputed(copy, longest_first[-1])
        yield from _kept(copy, longest_first[-1])


def _in_situation(
    situation: Situation, lengths: Sequence[int], kinds: Sequence[Kind], most: int
) -> Iterator[Measurement]:
    """Measure every kind of dependence in one way in which the model runs."""
    for kind in kinds:
        declared = not declares(situation.model, DECLARED[kind])
        for length in lengths:
            told = partial(Measurement, kind, situation.name, length, declared)
            yield _unless_refused(told, partial(_broken, situation, kind, length, most, kinds))


def _unless_refused(
    told: Callable[..., Measurement], look: Callable[[], Breach | None]
) -> Measurement:
    """The findings of a look at the model; a model that refuses to run so has none."""
    try:
        return told(look())
    except StrawberryError as error:
        return told(None, str(error))


def _broken(
    situation: Situation, kind: Kind, length: int, most: int, kinds: Sequence[Kind]
) -> Breach | None:
    """The first breach at that length, with its place; of history too, if that is asked for."""
    model, run = situation.model, situation.run
    for limits in _limits(kind, length, most, model):
        before, after = compared(run, limits)
        breach = difference(limits, before, after)
        if breach is None:
            continue
        if kind == "history" or repeats(run, limits, before):
            if is_its_own(run, limits, before):
                return _placed(situation, limits, breach)
        elif "history" in kinds and declares(model, "stateless"):
            every = replace(limits, kind="history", same=torch.ones_like(limits.same))
            detail = "the same batch has other outputs when it comes again"
            return _placed(situation, every, replace(breach, kind="history", detail=detail))
    return None


def _placed(situation: Situation, limits: Limits, breach: Breach) -> Breach:
    """The breach with its place, and with what is left behind where that matters."""
    model = situation.model
    place = first_difference(model, situation.run, limits) or suspects(model)
    left = left_by(situation.model, partial(outputs, situation.run, limits.first), limits.kind)
    return replace(breach, detail=f"{breach.detail} {situation.name}{left}", place=place)


def _gradients(model: LanguageModel, length: int, most: int) -> Measurement:
    """A second witness: no output may have a gradient by what is embedded after it."""
    limits = _limits("future", length, min(most, FEW), model)[0]
    breaches = (gradient_breach(model, limits.row(index)) for index in range(len(limits.first)))
    declared = not declares(model.train(), "causal")
    told = partial(Measurement, "future", "in its gradients", length, declared)
    look = partial(_suspected, model, lambda: next(filter(None, breaches), None))
    return _unless_refused(told, look)


def _recomputed(model: LanguageModel, length: int) -> Measurement:
    """Compare a training pass with and without recomputed activations."""
    ids = _limits("history", length, 1, model)[0].first
    declared = not declares(model.train(), "stateless")
    told = partial(Measurement, "history", "with recomputed activations", length, declared)
    objective = partial(_loss, model, ids)
    return _unless_refused(told, lambda: recomputing_breach(model, objective))


def _alone(model: LanguageModel, length: int) -> Measurement:
    """Compare sequences that are alone in their batch with the same ones together."""
    ids = _limits("history", length, 1, model)[0].first
    other, together, alone = lonely(model)
    same = torch.ones_like(ids, dtype=torch.bool)
    limits = Limits("batch", ids, ids, same)
    told = partial(Measurement, "batch", "alone", length, not declares(other, "batch_independent"))

    def look() -> Breach | None:
        if draws(other, together, ids):
            return None  # other shapes have other draws
        both = outputs(together, ids), outputs(alone, ids)
        breach = difference(limits, *both, ROUNDING * NOISE[both[0].dtype])
        detail = "a sequence has other outputs where it is alone in its batch"
        return breach and replace(breach, detail=detail, place=suspects(other))

    return _unless_refused(told, look)


def _kept(model: LanguageModel, length: int) -> Iterator[Measurement]:
    """Find dependence of outputs on what passes and steps leave: a count, for example."""
    ids = _limits("history", length, 1, model)[0].first
    always = {"as after many passes": aged_breach, "a day later": late_breach}
    for situation in plain(model):
        # In evaluation outputs may depend on statistics that training keeps in buffers.
        training = {"after a training step": stepped_breach} if situation.model.training else {}
        looks = always | training
        for name, look in looks.items():
            declared = not declares(situation.model, "stateless")
            told = partial(Measurement, "history", f"{situation.name}, {name}", length, declared)
            yield _unless_refused(told, partial(look, situation.model, situation.run, ids))


def _code(model: LanguageModel) -> Iterator[Measurement]:
    """Find components that replace functions of Strawberry, or of its libraries."""
    for breach in replaced(files_of_model(model), model.modules()):
        yield Measurement("code", "in what calls it", 0, False, breach)


def _losses(model: LanguageModel, length: int) -> Iterator[Measurement]:
    """Compare losses with the logits that a model gives without its targets."""
    ids = _limits("history", length, 1, model)[0].first
    vocab_size = model.vocab_size
    told = partial(Measurement, "loss", "in its terms", length, False)
    yield _unless_refused(told, lambda: next(iter(taken(model, ids)), None))
    for training in (True, False):
        other = deepcopy(model).train(training)
        dtype = next(other.parameters()).dtype
        name = "given targets in training" if training else "given targets"
        looks: list[Callable[[], Breach | None]] = [
            partial(targets_breach, partial(_nats, other), other, ids, vocab_size, dtype)
        ]
        if not other.objective.left_to_right:
            causal = declares(other, "causal")
            looks = [
                partial(bound_breach, other.predictions, ids, vocab_size, dtype, causal=causal)
            ]
        elif not training:
            looks.append(partial(logged_breach, partial(_logged, other), other, ids, dtype))
        for look in looks:
            told = partial(Measurement, "loss", name, length, False)
            yield _unless_refused(told, partial(_suspected, other, look))


def _suspected(model: LanguageModel, look: Callable[[], Breach | None]) -> Breach | None:
    """A breach that no outputs show, with the component that isn't Strawberry's as its place."""
    breach = look()
    return breach and replace(breach, place=breach.place or suspects(model))


def _logged(model: LanguageModel, ids: Tensor, targets: Tensor) -> Tensor:
    return model.loss(ids, targets).cross_entropy


def _nats(model: LanguageModel, ids: Tensor, targets: Tensor) -> Tensor:
    return model.measure(ids, targets).rows.sum()


def _loss(model: LanguageModel, ids: Tensor) -> Tensor:
    return model.loss(ids, ids).total


def is_its_own(
    run: Run,
    limits: Limits,
    before: Tensor,
    noise: float | None = None,
    agree: Callable[[bool], bool] = bool,
) -> bool:
    """Return whether a breach is of its own kind, and not of another kind that shows here too.

    Ranks run as many passes as each other: `agree` says whether any of them says so.
    """
    if limits.kind == "history":
        return True
    if agree(not repeats(run, limits, before, noise)):
        return False
    if limits.kind == "batch":
        return True
    # Rows that are changed otherwise change other rows: each is tried alone.
    rows = map(limits.row, range(len(limits.first)))
    return any([difference(alone, *compared(run, alone), noise) is not None for alone in rows])  # noqa: C419 (no rank leaves out a pass)


def repeats(run: Run, limits: Limits, before: Tensor, noise: float | None = None) -> bool:
    """Return whether the first batch gives the same outputs again."""
    everywhere = replace(limits, same=torch.ones_like(limits.same))
    return difference(everywhere, before, outputs(run, limits.first), noise) is None


def _limits(kind: Kind, length: int, most: int, model: LanguageModel) -> list[Limits]:
    """The pairs of batches to compare, of drawn ids."""
    vocab_size = model.vocab_size
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(vocab_size, (ROWS, length), generator=generator).to(model.device)
    chosen = cuts(length, None if length <= DENSE and most == CUTS else most)
    return pairs(kind, ids if kind == "future" else ids[:3], chosen, vocab_size)
