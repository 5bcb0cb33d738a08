"""The ways in which a model is run, each of which can hide a dependence of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from strawberry.contracts import Component, Loop, Router
from strawberry.errors import StrawberryError
from strawberry.model.risks import declares
from strawberry.referee.writes import undisturbed

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

DISTURBANCE: Final = 0.05
"""Standard deviation of what is added to each weight: a gate that begins at zero is opened."""
PIECES: Final = (5, 1, 1, 30, 2, 17)
"""Tokens of cached calls, in turn."""


@dataclass(frozen=True, slots=True)
class Situation:
    """One way to run a model.

    Attributes:
        name: for messages, such as `in training`.
        model: the model, in the mode at hand.
        run: ids (B, T) -> hidden states (B, T, C), of which the head makes logits one by one.
    """

    name: str
    model: LanguageModel
    run: Callable[[Tensor], Tensor]


def disturbed(model: LanguageModel) -> LanguageModel:
    """A copy whose weights are all a little different from their initial values."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter), alpha=DISTURBANCE)
    return other


def original(model: LanguageModel) -> Iterator[Situation]:
    """The model itself, in evaluation and in training: a component can make copies that behave.

    It is left as it was once all has been taken.
    """
    before = model.training
    with undisturbed(model):
        try:
            yield Situation("as it is, in evaluation", model.eval(), _hidden(model))
            yield Situation("as it is, in training", model.train(), _hidden(model))
        finally:
            model.train(before)


def lonely(
    model: LanguageModel,
) -> tuple[LanguageModel, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """A copy in float64, in evaluation; passes over a batch, and over its sequences one by one.

    In float64 a router chooses the same experts, whichever products a batch is computed by.
    """
    other = copy.deepcopy(model).eval()
    other = other if model.device.type == "mps" else other.double()
    together = _hidden(other)
    return other, together, lambda ids: torch.cat([together(row[None]) for row in ids])


def plain(model: LanguageModel) -> Iterator[Situation]:
    """Training and evaluation; the first with gradients, as where it counts."""
    training = copy.deepcopy(model).train()
    yield Situation("in training", training, lambda ids: training.trunk(ids)[0].detach())
    evaluation = copy.deepcopy(model).eval()
    yield Situation("in evaluation", evaluation, _hidden(evaluation))


def special(model: LanguageModel, *, compiled: bool = True) -> Iterator[Situation]:
    """Everything else: depths, documents, cache, other precisions, a compiled graph."""
    model = copy.deepcopy(model).eval()
    yield from _depths(model)
    yield from _documents(model)
    yield from _cached(model)
    yield from _bfloat16(model)
    yield from _exactly(model)
    yield from _adjusted(model)
    if compiled:
        yield from _compiled(model)


def _depths(model: LanguageModel) -> Iterator[Situation]:
    outermost = model.stack.outermost()
    for steps in range(1, max((recursion.steps for recursion in outermost), default=1)):
        other = copy.deepcopy(model)
        other.set_steps(steps)
        yield Situation(f"with {steps} recursion steps", other, _hidden(other))


def _documents(model: LanguageModel) -> Iterator[Situation]:
    if not declares(model, "separates"):  # no recipe has it so
        return
    for training in (False, True):
        other = copy.deepcopy(model).train(training)
        other.separator = 0
        yield Situation(f"with documents apart{_mode(training)}", other, _hidden(other))


def _cached(model: LanguageModel) -> Iterator[Situation]:
    if not (declares(model, "cacheable") and declares(model, "causal")):
        return

    @torch.no_grad()
    def run(ids: Tensor) -> Tensor:
        cache = model.new_cache(batch=len(ids), length=ids.shape[1])
        hidden, at, turn = [], 0, 0
        while at < ids.shape[1]:
            size = PIECES[turn % len(PIECES)]
            hidden.append(model.trunk(ids[:, at : at + size], cache)[0])
            at, turn = at + size, turn + 1
        return torch.cat(hidden, 1)

    yield Situation("in cached calls", model, run)


def _bfloat16(model: LanguageModel) -> Iterator[Situation]:
    for training in (True, False):
        other = copy.deepcopy(model).train(training)

        @torch.no_grad()
        def run(ids: Tensor, other: LanguageModel = other) -> Tensor:
            with torch.autocast(ids.device.type, torch.bfloat16):
                return other.hidden(ids).to(torch.bfloat16)

        yield Situation(f"in bfloat16{_mode(training)}", other, run)


def _exactly(model: LanguageModel) -> Iterator[Situation]:
    """In float64, where a gate that is all but shut shows what is behind it."""
    if model.device.type == "mps":
        return
    for training in (True, False):
        other = copy.deepcopy(model).double().train(training)
        yield Situation(f"in float64{_mode(training)}", other, _hidden(other))


def _mode(training: bool) -> str:
    return ", in training" if training else ""


def _adjusted(model: LanguageModel) -> Iterator[Situation]:
    """With numbers that a curriculum may set."""
    for path, component in model.named_modules():
        for name in component.adjustable if isinstance(component, Component) else ():
            value = getattr(component, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            other = copy.deepcopy(model)
            setattr(other.get_submodule(path), name, 2 * value + 1)
            told = f"with {path}.{name} = {2 * value + 1}"
            yield Situation(told, other, _unless_invalid(_hidden(other)))


def _unless_invalid(run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A run with a setting that the component may not support; then it is a refusal."""

    def tried(ids: Tensor) -> Tensor:
        try:
            return run(ids)
        except (ValueError, RuntimeError, IndexError, TypeError) as error:
            raise StrawberryError(str(error)) from error

    return tried


def _compiled(model: LanguageModel) -> Iterator[Situation]:
    modules = list(model.modules())
    if any(isinstance(m, Router) or (isinstance(m, Loop) and not m.exact) for m in modules):
        return
    for training in (False, True):
        other = copy.deepcopy(model).train(training)
        torch._dynamo.reset()  # noqa: SLF001 (torch's own way to forget what it compiled)
        compiled = torch.compile(other.trunk, backend="eager")

        @torch.no_grad()
        def run(ids: Tensor, compiled: Any = compiled) -> Tensor:
            hidden: Tensor = compiled(ids)[0]
            return hidden

        yield Situation(f"compiled{_mode(training)}", other, run)


def _hidden(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    return torch.no_grad()(model.hidden)
