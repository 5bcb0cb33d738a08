"""The cost of a recursion's loop, beside that of the stack which it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.contracts import Loop, Use
from strawberry.model.counting import Cost, CostMeter
from strawberry.model.looping import CountedInner, new_loop_state
from strawberry.model.stack import CacheShape, state_of

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel
    from strawberry.model.recursion import Recursion


def loop_cost(
    recursion: Recursion, loop: Loop, model: LanguageModel, length: int, meter: CostMeter
) -> Cost:
    """Count what a loop computes itself, in evaluation, and the state that it keeps."""
    device = next(iter(meter.parameters.values())).device
    weights = recursion.weights or model.weights
    inner = CountedInner(loop, recursion.steps)
    use = Use(
        positions=torch.arange(length, device=device),
        offset=0,
        positional=model.positional,
        weights=weights,
        residual=model.residual,
        tokens=torch.zeros(1, length, dtype=torch.long, device=device),
    )

    def run(x: Tensor) -> Tensor:
        stream, _ = loop(model.residual.begin(x, use), use, inner)
        return model.residual.end(stream, use)

    width, training = model.n_embd, loop.training
    loop.eval()
    cost = meter.count(run, torch.empty(1, length, width, device=device))
    loop.train(training)
    short, long = (_state_bytes(recursion, loop, n, device) for n in (length, 2 * length))
    per_token = (long - short) // length
    return replace(
        cost, cache_bytes_per_token=per_token, cache_fixed_bytes=short - per_token * length
    )


def _state_bytes(recursion: Recursion, loop: Loop, length: int, device: torch.device) -> int:
    room = CacheShape(1, length, device, torch.float32)
    state = new_loop_state(loop, recursion.steps, state_of(loop, room), room)
    return sum(tensor.nbytes for tensor in state.values())
