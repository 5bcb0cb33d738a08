"""Averages of weights: that they are means, of each number by itself, and resume exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from strawberry.check.outcome import Finding
from strawberry.check.subject import Subject
from strawberry.contracts import Averaging, State
from strawberry.runs.averages import run_site

STEPS = 60


def _built(subject: Subject) -> Averaging:
    (spec,) = subject.recipe.averaging
    averaging: Averaging = spec.construct(run_site(subject.recipe), contract=Averaging)
    return averaging


def _path() -> list[Tensor]:
    """Weights (6, 4) that wander."""
    generator = torch.Generator().manual_seed(3)
    return list(torch.randn(STEPS, 6, 4, generator=generator).cumsum(0))


def _after(averaging: Averaging, path: list[Tensor], kept: State, first: int = 1) -> Tensor:
    for step, weights in enumerate(path, first):
        averaging.update(kept, weights.clone(), step)
    value = averaging.value(kept, first + len(path) - 1)
    return path[-1] if value is None else value


def mean(subject: Subject) -> str:
    """Is it within what the weights were, and of weights that stand still the weights?"""
    path = _path()
    still = _after(_built(subject), [path[0]] * STEPS, {})
    if not torch.allclose(still, path[0], rtol=1e-5, atol=1e-5):
        raise Finding(
            f"of weights that stand still it is {float((still - path[0]).abs().max())} off"
        )
    every, value = torch.stack(path), _after(_built(subject), path, {})
    if ((value < every.amin(0) - 1e-5) | (value > every.amax(0) + 1e-5)).any():
        raise Finding("it is outside of all that the weights were")
    return f"after {STEPS} steps"


def shards(subject: Subject) -> str:
    """Is that of a part the part of it, bit for bit?"""
    path = _path()
    whole = _after(_built(subject), path, {})
    half = _after(_built(subject), [weights[:3] for weights in path], {})
    if not torch.equal(half, whole[:3]):
        raise Finding("the average of half the rows is not half of the average")
    return "bit for bit"


def resumes(subject: Subject) -> str:
    """Does it go on from what was kept, bit for bit, and keep no more than it says?"""
    averaging, path, kept = _built(subject), _path(), State()
    whole = _after(averaging, path, {})
    _after(averaging, path[: STEPS // 2], kept)
    saved = {name: tensor.clone() for name, tensor in kept.items()}
    again = _after(_built(subject), path[STEPS // 2 :], saved, STEPS // 2 + 1)
    if not torch.equal(again, whole):
        raise Finding("after a resume it is another")
    if len(saved) > averaging.copies:
        raise Finding(f"it keeps {len(saved)} tensors, and says {averaging.copies}")
    if any(tensor.shape != path[0].shape for tensor in saved.values()):
        raise Finding("what it keeps has another shape than the weights")
    return f"bit for bit, {averaging.copies} kept of each parameter"
