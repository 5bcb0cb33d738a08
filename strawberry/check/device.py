"""Checks on an accelerator: all tensors on the device, no host synchronisation.

A pretend accelerator (`strawberry.check.pretend`) finds on any machine what would stall a GPU.
"""

from __future__ import annotations

import contextlib
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.pretend import NAME, Stall, Stalls, accelerator, is_outside
from strawberry.check.subject import Subject
from strawberry.contracts import components
from strawberry.contracts.numbers import WITHOUT_FLOAT64
from strawberry.errors import StrawberryError
from strawberry.model.language_model import LanguageModel
from strawberry.model.risks import declares
from strawberry.runs.device import Machine
from strawberry.training.engine import Engine
from strawberry.training.optimizers import Optimizers
from strawberry.training.step import Step

STEPS = 3
"""Number of training steps; the first may create cached tensors, so stalls count from the second.
"""
SHOWN = 6
"""Maximum number of lines in a finding."""


def model(subject: Subject) -> str:
    """On an accelerator, is every tensor on the device, without host reads or copies in a step?"""
    return _found(subject, _step_and_token)


def optimizer(subject: Subject) -> str:
    """On an accelerator, is optimizer state on the device, without host reads or copies?"""
    return _found(subject, lambda subject, stalls: _train(subject, stalls, chosen=True))


def _found(subject: Subject, act: Callable[[Subject, Stalls], None]) -> str:
    try:
        with _any_accelerator() as stalls:
            try:
                act(subject, stalls)
            except StrawberryError:  # it says itself that it can't run on such a device
                raise
            except Exception as error:
                raise Finding(_raised(subject, error)) from error
            listed = list(stalls)
    except StrawberryError as refusal:
        raise NotApplicable(str(refusal)) from refusal
    reasons = _declared(subject)
    told = [stall for stall in listed if stall.kind != "read" or not reasons]
    if told:
        raise Finding(_listed(subject, told))
    if listed:
        return f"{len(listed)} host reads, declared: {'; '.join(reasons)}"
    return "no host read, no copy to the device, no float64"


@contextlib.contextmanager
def _any_accelerator() -> Iterator[Stalls]:
    """The pretend device with the limits of every device: no float64.

    Anomaly mode attributes the backward pass to lines of the forward pass.
    """
    anomalies = torch.autograd.set_detect_anomaly(True, check_nan=False)
    with accelerator() as stalls, warnings.catch_warnings(), anomalies:
        warnings.filterwarnings("ignore", "Error detected in ")  # the error itself is told
        WITHOUT_FLOAT64.add(NAME)
        try:
            yield stalls
        finally:
            WITHOUT_FLOAT64.discard(NAME)


def _step_and_token(subject: Subject, stalls: Stalls) -> None:
    _train(subject, stalls, chosen=False)
    _decode(subject, stalls)


def _train(subject: Subject, stalls: Stalls, *, chosen: bool) -> None:
    """Run a few steps, with the recipe's optimizers or a plain one."""
    model = subject.model(training=True).to(NAME)
    idx = subject.tokens().to(NAME)
    targets = (idx * 7 + 3) % subject.recipe.model.vocab_size
    infos, device = model.parameter_infos(), model.device
    ours: Any = Optimizers(subject.recipe, infos, device) if chosen else _Plain(model)
    machine = Machine(device, torch.float32, compiled=False)
    clip = subject.recipe.train.grad_clip
    step = Step(Engine(model), ours, lambda _: [(idx, targets)], machine, clip)
    for number in range(STEPS):
        if number == 1:
            _forget(stalls)
        step.gradient(number)
        step.apply(number)


class _Plain:
    """Plain gradient descent with the interface of `Optimizers`."""

    passes = 1

    def __init__(self, model: LanguageModel) -> None:
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        self.zero_grad = self.optimizer.zero_grad

    def step(self, number: int) -> None:
        self.optimizer.step()


@torch.no_grad()
def _decode(subject: Subject, stalls: Stalls) -> None:
    """Decode token by token with a cache, if there is one; else run whole passes."""
    held = stalls.take()
    model = subject.model().to(NAME)
    idx = subject.tokens(batch=2).to(NAME)
    for number, run in enumerate(_calls(model, idx)):
        if number == 2:
            _forget(stalls)
        run()
    stalls.put_back(held)


def _calls(model: LanguageModel, idx: Tensor) -> Iterator[Callable[[], object]]:
    if not (declares(model, "causal") and declares(model, "cacheable")):
        yield from [lambda: model(idx)] * (STEPS + 1)
        return
    cache = model.new_cache(len(idx), idx.shape[1])
    yield lambda: model(idx[:, :3], cache=cache)
    for at in range(3, idx.shape[1]):
        yield lambda at=at: model(idx[:, at : at + 1], cache=cache)  # type: ignore[misc]


def _forget(stalls: Stalls) -> None:
    """Stalls of the first step may be for cached tensors; a float64 always counts."""
    stalls.put_back([stall for stall in stalls.take() if stall.kind == "float64"])


def _declared(subject: Subject) -> list[str]:
    """Declared reasons why components synchronise with the host."""
    every = (component.waits for component in components(subject.model()))
    return list(dict.fromkeys(reason for reason in every if reason))


def _raised(subject: Subject, error: Exception) -> str:
    """The exception, at the innermost line outside torch."""
    first = (str(error).splitlines() or [""])[0]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_outside(f.filename)]
    places = [f"{frame.filename}:{frame.lineno}" for frame in reversed(frames)]
    place = places[0] if places else "torch"
    return f"{place}: {type(error).__name__}: {first}{_own(subject, places)}"


def _listed(subject: Subject, stalls: list[Stall]) -> str:
    lines: dict[str, int] = {}
    for stall in stalls:
        places = [f"{place.file}:{place.line}" for place in stall.stack]
        line = f"{stall}{_own(subject, places)}"
        lines[line] = lines.get(line, 0) + 1
    shown = [f"{line}, {count} times" for line, count in lines.items()]
    more = f"; and {len(shown) - SHOWN} more lines" if len(shown) > SHOWN else ""
    return "; ".join(shown[:SHOWN]) + more


def _own(subject: Subject, places: list[str]) -> str:
    """`, for FILE:LINE`: the component's own line, if the innermost is a helper's."""
    file = None if subject.entry is None else inspect.getsourcefile(subject.entry.load())
    own = [place for place in places if file is not None and place.startswith(f"{file}:")]
    return f", for {own[0]}" if own and own[0] != places[0] else ""
