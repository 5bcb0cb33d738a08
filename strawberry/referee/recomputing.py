"""Compare a model with and without recomputed activations in the backward pass.

Values that a block writes for another one outside `use.memo` and `use.once` come from the wrong
block when its pass runs again. No outputs show that; gradients do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.contracts import to_local
from strawberry.model.stack import BlockNode
from strawberry.referee.dependence import NOISE, Breach, same_draws
from strawberry.referee.writes import undisturbed, writes

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

Objective = Callable[[], Tensor]
"""A training loss of the model at hand, the same at every call."""
_ALLOWED = 10.0
"""How much more rounding gradients may have than outputs."""


def recomputing_breach(
    model: LanguageModel, objective: Objective, agree: Callable[[bool], bool] = bool
) -> Breach | None:
    """The first parameter whose gradient is another one, with the lines that write what is kept.

    The model is left as it was; it has no gradients afterwards.

    Args:
        model: the model, in training. Of shards every rank calls this, with an objective alike.
        objective: makes the loss.
        agree: whether any rank finds so; in one process, its own word.
    """
    with undisturbed(model):
        with _recompute(model, False):
            before, again = _gradients(model, objective), _gradients(model, objective)
        with _recompute(model, True):
            breach = _compared(before, _gradients(model, objective))
        if agree(_compared(before, again) is not None) or not agree(breach is not None):
            return None  # gradients that no call repeats: the history check says so
        lines = writes(model, lambda: _gradients(model, objective))
    left = f": kept between blocks by {', '.join(lines)}" if lines else ""
    breach = breach or Breach("history", 0.0, "gradients differ on another rank")
    return replace(breach, detail=f"{breach.detail} where activations are recomputed{left}")


def _compared(one: dict[str, Tensor], other: dict[str, Tensor]) -> Breach | None:
    if one.keys() != other.keys():
        (name, *_) = one.keys() ^ other.keys()
        return Breach("history", 1.0, f"{name} has a gradient or none")
    if not one:
        return None
    sizes = {name: float(slope.abs().max()) for name, slope in one.items() if slope.numel()}
    largest = max(sizes.values(), default=0.0)
    for name, slope in one.items():
        if not slope.numel():
            continue
        size = float((other[name] - slope).abs().max()) / max(largest, 1e-30)
        if not size <= _ALLOWED * NOISE[slope.dtype]:
            return Breach("history", size, f"the gradient of {name} changes")
    return None


def _gradients(model: LanguageModel, objective: Objective) -> dict[str, Tensor]:
    """Gradients by name, with fixed random numbers; of a sharded model this rank's shards."""
    with same_draws(model.device), torch.enable_grad():
        objective().backward()  # type: ignore[no-untyped-call]
    slopes = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = None
    return {name: to_local(slope).clone() for name, slope in slopes.items()}


@contextlib.contextmanager
def _recompute(model: LanguageModel, whether: bool) -> Iterator[None]:
    blocks = [module for module in model.modules() if isinstance(module, BlockNode)]
    before = [block.recompute for block in blocks]
    for block in blocks:
        block.recompute = whether
    try:
        yield
    finally:
        for block, kept in zip(blocks, before, strict=True):
            block.recompute = kept
