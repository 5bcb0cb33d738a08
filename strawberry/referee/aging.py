"""Find dependence of outputs on what a model keeps of its passes, such as a count of them.

A cheat that begins after a thousand passes shows nothing before. So what a pass and a step change
of a model is set to what it may come to, and the outputs are compared.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from strawberry.model.risks import declares
from strawberry.referee.dependence import (
    Breach,
    Limits,
    Run,
    compared,
    cuts,
    difference,
    outputs,
    pairs,
)
from strawberry.referee.places import suspects
from strawberry.referee.writes import changed, undisturbed

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

AGE = 1_000_000
"""Values that counts are set to."""


def aged_breach(model: LanguageModel, run: Run, ids: Tensor) -> Breach | None:
    """The dependence of outputs (B, T, C) on numbers and tensors that passes leave behind.

    On what checkpoints hold they may depend, as on parameters, but see no later tokens by it.
    The model is left as it was.
    """

    def live() -> None:
        outputs(run, ids)
        if model.training:
            model.after_step()

    saved = list(model.state_dict(keep_vars=True).values())
    with undisturbed(model):
        left = changed(model, live)
        live()
        before = outputs(run, ids)
        for write in left:
            kept = write.values.get(write.name)
            if (aged := _aged(kept)) is None or not isinstance(write.values, dict):
                continue  # classes can be read alone in this way
            write.values[write.name] = aged
            if any(kept is buffer for buffer in saved):
                breach = _ahead(model, run, ids)
                detail = "outputs depend on later tokens, by"
            else:
                same = torch.ones_like(ids, dtype=torch.bool)
                breach = difference(Limits("history", ids, ids, same), before, outputs(run, ids))
                detail = "outputs depend on"
            write.values[write.name] = kept
            if breach is not None:
                detail = f"{detail} what is kept at {write.line}"
                return replace(breach, detail=detail, place=write.path)
    return None


def stepped_breach(model: LanguageModel, run: Run, ids: Tensor) -> Breach | None:
    """The dependence of outputs in training on a pass of other tokens, and on its gradient."""
    (limits,) = pairs("history", ids, (), model.vocab_size)
    with undisturbed(model):
        before = outputs(run, ids)
        with torch.enable_grad():
            model.loss(limits.second, limits.second).total.backward()  # type: ignore[no-untyped-call]
        model.zero_grad()
        after = outputs(run, ids)
    breach = difference(limits, before, after)
    detail = "outputs depend on the gradient of an earlier batch"
    return breach and replace(breach, detail=detail, place=suspects(model))


def late_breach(model: LanguageModel, run: Run, ids: Tensor) -> Breach | None:
    """The dependence of outputs on the time."""
    limits = Limits("history", ids, ids, torch.ones_like(ids, dtype=torch.bool))
    with undisturbed(model):
        before = outputs(run, ids)
        with _a_day_later():
            after = outputs(run, ids)
    breach = difference(limits, before, after)
    return breach and replace(breach, detail="outputs depend on the time", place=suspects(model))


@contextlib.contextmanager
def _a_day_later() -> Iterator[None]:
    """Within it Python's clocks are a day ahead."""
    names = ("time", "monotonic", "perf_counter", "process_time")
    clocks = {name: getattr(time, name) for name in names}
    for name, clock in clocks.items():
        setattr(time, name, lambda clock=clock: clock() + 86_400)
    try:
        yield
    finally:
        for name, clock in clocks.items():
            setattr(time, name, clock)


def _ahead(model: LanguageModel, run: Run, ids: Tensor) -> Breach | None:
    """Find dependence of outputs on later tokens, if the model declares that there is none."""
    if not declares(model, "causal"):
        return None
    at = cuts(ids.shape[1], len(ids))
    (limits,) = pairs("future", ids, at, model.vocab_size)
    return difference(limits, *compared(run, limits))


def _aged(value: Any) -> Any:
    """A possible later value of a kept number or tensor; None for anything else."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return type(value)(AGE)
    if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
        return torch.full_like(value, True if value.dtype == torch.bool else AGE)
    return None
