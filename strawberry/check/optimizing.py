"""Checks of optimizers and schedules: they step, update everything, resume exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import torch

from strawberry.check.outcome import Finding
from strawberry.check.subject import Subject
from strawberry.model.language_model import LanguageModel
from strawberry.runs import randomness
from strawberry.runs.device import Machine
from strawberry.training.engine import Engine
from strawberry.training.optimizers import Optimizers, make_schedule
from strawberry.training.step import Step

STEPS = 60
WAIT = 12
"""Number of steps after which everything has changed; RAdam has a warm-up of its own."""


def descends(subject: Subject) -> str:
    """Does the loss of a small model fall?"""
    torch.manual_seed(0)
    model = subject.model(training=True)
    step = _trained(subject, model)
    (before,) = _take(step, [0])
    for number in range(1, STEPS):
        (loss,) = _take(step, [number])
        if not math.isfinite(loss):
            raise Finding(f"the loss is not finite at step {number}")
    if loss > 0.9 * before:
        raise Finding(f"the loss went from {before:.3f} to {loss:.3f} in {STEPS} steps")
    return f"from {before:.3f} to {loss:.3f} in {STEPS} steps"


def moves(subject: Subject) -> str:
    """Is every parameter that has a gradient updated?"""
    model = subject.model(training=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    _take(_trained(subject, model), range(WAIT))
    still = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    if still:
        raise Finding(f"in {WAIT} steps these never change: " + ", ".join(still))
    return f"{len(before)} parameters"


def resumes(subject: Subject) -> str:
    """Does a run that is saved and loaded continue bit for bit?"""
    whole = subject.model(training=True)
    step = _trained(subject, whole)
    _take(step, range(4))
    with step.optimizers.evaluating():
        weights = {k: v.clone() for k, v in whole.state_dict().items()}
        kept, plain = step.optimizers.state()
        tensors = {k: v.clone() for k, v in kept.items()}
        try:
            plain = json.loads(json.dumps(plain))
        except (TypeError, ValueError) as error:
            raise Finding(f"its state is not made of tensors and plain values: {error}") from error
    again = subject.model(training=True)
    resumed = _trained(subject, again)
    again.load_state_dict(weights)
    resumed.optimizers.load(tensors, plain)
    resumed.optimizers.loaded()
    generators = randomness.numbers(), randomness.tensors()  # a run puts these back too
    _take(step, range(4, 8))
    randomness.restore(*generators)
    _take(resumed, range(4, 8))
    other = dict(again.named_parameters())
    differ = [name for name, p in whole.named_parameters() if not torch.equal(p, other[name])]
    if differ:
        raise Finding("after loading, training differs: " + ", ".join(differ))
    return "4 identical steps after loading"


def in_range(subject: Subject) -> str:
    """Are its learning rates finite, at least 0, at most the peak, and a function of the step?"""
    train = subject.recipe.train
    schedule = make_schedule(subject.recipe)
    rates = [schedule(step) for step in range(train.max_iters)]
    for step, rate in enumerate(rates):
        if not (math.isfinite(rate) and 0 <= rate <= train.learning_rate * (1 + 1e-9)):
            raise Finding(
                f"the learning rate of step {step} is {rate:g}; the peak is {train.learning_rate:g}"
            )
    if max(rates) == 0:
        raise Finding("every learning rate is 0")
    again = [schedule(step) for step in reversed(range(train.max_iters))]
    if again[::-1] != rates:
        raise Finding("asked again in another order, it gives different rates")
    return f"from {rates[0]:.2g} through {max(rates):.2g} to {rates[-1]:.2g}"


def _trained(subject: Subject, model: LanguageModel) -> Step:
    """The steps of a run on one batch, whose next tokens are easy to learn."""
    idx = subject.tokens()
    parts = [(idx, (idx * 7 + 3) % subject.recipe.model.vocab_size)]
    optimizers = Optimizers(subject.recipe, model.parameter_infos(), model.device)
    machine = Machine(model.device, torch.float32, compiled=False)
    clip = subject.recipe.train.grad_clip
    return Step(Engine(model), optimizers, lambda _: parts, machine, clip)


def _take(step: Step, numbers: Iterable[int]) -> list[float]:
    """Take these steps; returns the loss of each."""
    losses: list[float] = []
    for number in numbers:
        step.gradient(number, lambda loss, _: losses.append(float(loss.total.detach())))
        step.apply(number)
    return losses
