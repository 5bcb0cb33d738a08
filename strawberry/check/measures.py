"""Measures: that their sums and counts add up over batches, and leave the model alone."""

from __future__ import annotations

import torch
from torch import Tensor

from strawberry.check.outcome import Finding
from strawberry.check.subject import Subject
from strawberry.contracts import Measure
from strawberry.referee.terms import OWN
from strawberry.referee.weights import bits, moved
from strawberry.runs.averages import run_site
from strawberry.training.engine import Engine


def _of(subject: Subject, ids: Tensor) -> dict[str, Tensor]:
    """The sum and the count of each metric, (2,)."""
    (spec,) = subject.recipe.measures
    measure: Measure = spec.construct(run_site(subject.recipe), contract=Measure)
    model = subject.model()
    with torch.no_grad():
        parts = measure.measure(model, ids, (ids * 7 + 3) % subject.recipe.model.vocab_size)
    return {name: torch.stack([v.double() for v in part]) for name, part in parts.items()}


def adds(subject: Subject) -> str:
    """Are the sums of two batches those of both together?"""
    ids = subject.tokens(4)
    taken = sorted(OWN & _of(subject, ids).keys())
    if taken:
        raise Finding(f"{taken[0]} is the name of an evaluation's own metric")
    whole, one, two = (_of(subject, part) for part in (ids, ids[:1], ids[1:]))
    for name, pair in whole.items():
        if not torch.allclose(one[name] + two[name], pair, rtol=1e-4, atol=1e-6):
            raise Finding(f"{name} of two batches is {one[name] + two[name]}, of both {pair}")
    return ", ".join(whole)


def leaves(subject: Subject) -> str:
    """Does it leave the model as it was?"""
    (spec,) = subject.recipe.measures
    measure: Measure = spec.construct(run_site(subject.recipe), contract=Measure)
    engine, ids = Engine(subject.model()), subject.tokens(2)
    before = bits(engine.model)
    with torch.no_grad():
        measure.measure(engine.logits, ids, ids)
    if changed := moved(before, bits(engine.model)):
        raise Finding(f"it changes {changed[0]}")
    return f"{len(before)} tensors"


def repeats(subject: Subject) -> str:
    """Is it the same when it is measured again?"""
    ids = subject.tokens(2)
    first, again = _of(subject, ids), _of(subject, ids)
    if any(not torch.equal(first[name], again[name]) for name in first):
        raise Finding("a second measurement differs")
    return "bit for bit"
