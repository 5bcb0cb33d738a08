"""One training step: what `train`, `profile`, `check` and `ablate --match time` all run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from strawberry.runs.device import Machine
from strawberry.training.batches import MicroBatch
from strawberry.training.engine import Engine

if TYPE_CHECKING:
    from strawberry.model.batch import Loss
    from strawberry.training.optimizers import Optimizers

Rows: TypeAlias = Callable[[int], Sequence[MicroBatch]]
"""This rank's micro-batches of a step, by its number from 0; there is at least one."""


class Step:
    """A training step in two halves, so that a caller can judge the gradient between them.

    Args:
        engine: shares the model among ranks.
        optimizers: change its parameters.
        rows: the micro-batches of each step.
        machine: what all is computed on.
        clip: the largest norm of the gradient; 0 doesn't clip.
    """

    def __init__(
        self,
        engine: Engine,
        optimizers: Optimizers,
        rows: Rows,
        machine: Machine,
        clip: float,
    ) -> None:
        self.engine, self.optimizers, self.rows = engine, optimizers, rows
        self.machine, self.clip = machine, clip

    def gradient(
        self, number: int, seen: Callable[[Loss, float], object] = lambda *_: None
    ) -> Tensor:
        """Leave the gradient of a step in the parameters; returns its norm before it is clipped.

        The step's loss is the sum over its targets divided by their count, over all micro-batches
        and ranks. So the gradient doesn't depend on how the step is divided.

        Args:
            number: of the step, from 0.
            seen: called with the loss of each micro-batch, and with the micro-batch's share of the
                step's tokens, once its gradient is there.
        """
        parts = self.rows(number)
        share = 1 / len(parts)
        count = self.engine.divisor([y for _, y in parts])
        for index, (x, y) in enumerate(parts):
            with self.engine.part(last=index == len(parts) - 1):
                with self.machine.autocast():
                    loss = self.engine.loss(x, y, count, share)
                loss.total.backward()  # type: ignore[no-untyped-call]
            seen(loss, share)
        return self.engine.clip(self.clip)

    def apply(self, number: int) -> None:
        """Change the parameters by the gradient that is there, and drop it."""
        self.optimizers.step(number)
        self.engine.model.after_step()
        self.optimizers.zero_grad()

    def skip(self, number: int) -> None:
        """Drop the gradient that is there; the schedule goes on all the same."""
        self.optimizers.set_rates(number)
        self.optimizers.zero_grad()

    def timed(self, numbers: Sequence[int]) -> Iterator[float]:
        """Take these steps; yields the seconds of each."""
        for number in numbers:
            self.machine.synchronize()
            began = time.perf_counter()
            self.gradient(number)
            self.apply(number)
            self.machine.synchronize()
            yield time.perf_counter() - began
