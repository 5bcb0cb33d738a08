"""One training step: what `train`, `profile` and `ablate --match time` all run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from strawberry.train.batches import MicroBatch
from strawberry.train.device import Machine
from strawberry.train.parallel.engine import Engine

if TYPE_CHECKING:
    from strawberry.model.language_model import Loss
    from strawberry.train.optimizers import Optimizers


def gradient(
    engine: Engine,
    machine: Machine,
    parts: Sequence[MicroBatch],
    limit: float,
    seen: Callable[[Loss], object] = lambda _: None,
) -> Tensor:
    """Leave the gradient of a step in the parameters; returns its norm before it is clipped.

    The step's loss is the sum over its targets divided by their count, over all micro-batches and
    ranks. So the gradient doesn't depend on how the step is divided.

    Args:
        engine: what shares the model among ranks.
        machine: what it computes on.
        parts: this rank's rows of each micro-batch; there is at least one.
        limit: the largest norm of the gradient; 0 doesn't clip.
        seen: told of the loss of each micro-batch, once its gradient is there.
    """
    count = engine.divisor([y for _, y in parts])
    for number, (x, y) in enumerate(parts):
        with engine.part(last=number == len(parts) - 1):
            with machine.autocast():
                loss = engine.loss(x, y, count, 1 / len(parts))
            loss.total.backward()  # type: ignore[no-untyped-call]
        seen(loss)
    return engine.clip(limit)


def update(engine: Engine, optimizers: Optimizers, step: int) -> None:
    """Change the parameters by the gradient that is there, at the rates of `step`."""
    optimizers.step(step)
    engine.model.after_step()
