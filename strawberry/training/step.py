"""One training step, which `train`, `profile`, `check` and `ablate --match time` all run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from strawberry.runs.curricula import Curricula
from strawberry.runs.device import Machine
from strawberry.training.batches import MicroBatch
from strawberry.training.engine import Engine

if TYPE_CHECKING:
    from strawberry.model.batch import Loss
    from strawberry.training.optimizers import Optimizers

Rows: TypeAlias = Callable[[int], Sequence[MicroBatch]]
"""This rank's micro-batches of a step, by its number from 0; at least one."""


class Step:
    """A training step in two halves, so that a caller can judge the gradient in between.

    Args:
        engine: shares the model among ranks.
        optimizers: update its parameters.
        rows: the micro-batches of each step.
        machine: the machine.
        clip: maximum norm of the gradient; 0 disables clipping.
        curricula: settings that change by the step.
    """

    def __init__(
        self,
        engine: Engine,
        optimizers: Optimizers,
        rows: Rows,
        machine: Machine,
        clip: float,
        curricula: Curricula | None = None,
    ) -> None:
        self.engine, self.optimizers, self.rows = engine, optimizers, rows
        self.machine, self.clip = machine, clip
        self.curricula = curricula

    def gradient(
        self, number: int, seen: Callable[[Loss, float], object] = lambda *_: None
    ) -> Tensor:
        """Compute the gradient of a step into the parameters; returns its norm before clipping.

        Where an optimizer takes several passes over the batch, it is that of the last one.

        The step's loss is the sum over its targets divided by their number, over all micro-batches
        and ranks. So the gradient doesn't depend on the division of the step.

        Args:
            number: number of the step, from 0.
            seen: receives the loss of each micro-batch, and its share of the step's tokens, after
                its gradient is computed.
        """
        if self.curricula is not None:
            self.curricula.put(self.engine.model, number)
        parts, passes = self.rows(number), self.optimizers.passes
        carried: list[dict[str, Tensor]] = [{} for _ in parts]
        for index in range(passes - 1):
            self.optimizers.set_rates(number)
            self._pass(number, parts, carried, lambda *_: None)
            self.optimizers.after_pass(index)
            self.optimizers.zero_grad()
        norm = self._pass(number, parts, carried, seen)
        if passes > 1:
            self.optimizers.after_pass(passes - 1)
        return norm

    def _pass(
        self,
        number: int,
        parts: Sequence[MicroBatch],
        carried: Sequence[dict[str, Tensor]],
        seen: Callable[[Loss, float], object],
    ) -> Tensor:
        """The gradient of all micro-batches; `carried` is what the objective keeps of each."""
        share = 1 / len(parts)
        count = self.engine.divisor([y for _, y in parts])
        for index, (x, y) in enumerate(parts):
            self.engine.model.carried = carried[index]
            with self.engine.part(last=index == len(parts) - 1):
                with self.machine.autocast():
                    loss = self.engine.loss(x, y, count, share)
                loss.total.backward()  # type: ignore[no-untyped-call]
            seen(loss, share)
        if self.curricula is not None:
            for parameter in self.curricula.frozen(self.engine.model, number):
                parameter.grad = None
        return self.engine.clip(self.clip)

    def apply(self, number: int) -> None:
        """Update the parameters with the gradient, and clear it."""
        self.optimizers.step(number)
        self.engine.model.after_step()
        self.optimizers.zero_grad()

    def skip(self, number: int) -> None:
        """Clear the gradient without an update; the schedule advances."""
        self.optimizers.set_rates(number)
        self.optimizers.zero_grad()

    def timed(self, numbers: Sequence[int]) -> Iterator[float]:
        """Run these steps; yields the seconds of each."""
        for number in numbers:
            self.machine.synchronize()
            began = time.perf_counter()
            self.gradient(number)
            self.apply(number)
            self.machine.synchronize()
            yield time.perf_counter() - began
