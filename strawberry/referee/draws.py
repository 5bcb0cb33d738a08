"""Which components of a model draw random numbers."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from strawberry.contracts import Component
from strawberry.referee.dependence import Run, outputs, same_draws
from strawberry.referee.places import named


def draws(model: nn.Module, run: Run, ids: Tensor) -> list[str]:
    """The path and class of each component that draws for these ids, by torch, numpy or Python.

    A component is named for its own draws, not for those of one inside it. Draws of a generator
    that a component has made for itself are not seen.
    """
    with same_draws(ids.device):
        before = _state(model)
        run(ids)
        if before == _state(model):
            return []
    return _drawing(model, lambda: outputs(run, ids)) or ["a part of the model"]


def _drawing(model: nn.Module, run: Callable[[], object]) -> list[str]:
    seen: dict[str, None] = {}
    begun: list[tuple[Any, int]] = []

    def before(module: nn.Module, _: Any) -> None:
        begun.append((_state(module), len(seen)))

    def after(path: str, module: nn.Module) -> None:
        state, inner = begun.pop()
        if len(seen) == inner and state != _state(module):
            seen[named(path, module)] = None

    with contextlib.ExitStack() as stack:
        for path, module in model.named_modules():
            if not isinstance(module, Component):
                continue
            stack.callback(module.register_forward_pre_hook(before).remove)
            hook = module.register_forward_hook(lambda m, _, __, path=path: after(path, m))
            stack.callback(hook.remove)
        run()
    return list(seen)


def _state(module: nn.Module) -> tuple[Any, ...]:
    """The states of all generators that a component may draw from."""
    parameter = next(module.parameters(), None)
    kept = [torch.get_rng_state()]
    if parameter is not None and parameter.device.type not in ("cpu", "meta"):
        kept.append(torch.get_device_module(parameter.device).get_rng_state(parameter.device))
    numbers = np.random.get_state()
    return (*(state.numpy().tobytes() for state in kept), random.getstate(), str(numbers))
