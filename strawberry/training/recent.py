"""Sums since the last row of the log, and whether all values were finite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from strawberry.errors import StrawberryError
from strawberry.ranks.world import World
from strawberry.runs.device import Machine
from strawberry.training.means import WeightedMeans

if TYPE_CHECKING:
    from strawberry.model.batch import Loss


class Diverged(StrawberryError):  # noqa: N818 (a finding about the run)
    """Loss, gradient or weights are not finite; the last checkpoint is from before."""

    exit_code = 1

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(
            f"loss, gradient or weights are not finite at step {step}; the last checkpoint "
            "is from before. Lower train.learning_rate or train.grad_clip, or set "
            "train.on_nonfinite: skip or back_off"
        )


class RecentSums:
    """Sums since the last row; they stay on the device until a row is due."""

    def __init__(self, machine: Machine, world: World | None = None) -> None:
        self.machine = machine
        self.world = world if world is not None else World()
        self.norm = torch.zeros((), device=machine.device)
        self.health = torch.zeros((), device=machine.device)  # NaN once anything was not finite
        self.timed = self.skipped = 0
        self.means = WeightedMeans()
        self.mark()
        self.start()

    def start(self) -> None:
        """Restart the clock."""
        self.timed = 0
        self.paused = 0.0
        self.steps_from = time.perf_counter()

    def add(self, loss: Loss, share: float = 1.0) -> None:
        """Add a micro-batch, with its share of a step's tokens."""
        self.means.add_part("loss", loss.cross_entropy, share)
        for name, part in loss.parts.items():
            self.means.add_part(name, part, share)
        self.means.add(loss.terms, share)
        self.health = self.health + 0 * loss.total.detach()

    def end_step(self, norm: Tensor) -> None:
        """Add the norm of a step's gradient."""
        self.timed += 1
        self.norm = norm
        self.health = self.world.sum(self.health + 0 * norm)

    def mark(self) -> None:
        """Remember the sums before a step that may be skipped."""
        self._marked = (self.means.copy(), self.norm, self.health)

    def drop_step(self) -> None:
        """Undo the step since `mark`, but count it."""
        self.means, self.norm, self.health = self._marked
        self.skipped += 1

    def finite(self) -> bool:
        """Return whether all losses and gradients were finite; synchronises with the device."""
        return math.isfinite(self.health.item())

    def check(self, step: int) -> None:
        """Raises Diverged, at `step`, if a loss or a gradient was not finite."""
        if not self.finite():
            raise Diverged(step)

    def state(self) -> dict[str, Any]:
        """The sums, as means over ranks, in JSON."""
        return {"means": self.means.state(self.world), "skipped": self.skipped}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""
        self.skipped = state["skipped"]
        self.means.load(state["means"], self.machine.device)
        self.health = torch.zeros((), device=self.machine.device)

    def pause(self) -> None:
        """Stop the clock: what follows is not training."""
        self.machine.synchronize()
        self._paused_at = time.perf_counter()

    def go_on(self) -> None:
        """Start the clock again."""
        self.paused += time.perf_counter() - self._paused_at

    def row(self, step_tokens: float) -> dict[str, float]:
        """Means since the last row, the gradient's norm, and the speed; starts again.

        `skipped` counts skipped steps; without any other step there are no means.
        """
        values = self.means.numbers(self.world)
        self.machine.synchronize()
        seconds = time.perf_counter() - self.steps_from - self.paused
        speed = self.timed * step_tokens / seconds
        values |= {"grad_norm": float(self.norm), "tokens_per_second": speed}
        if self.skipped:
            values["skipped"] = self.skipped
        self.means, self.skipped = WeightedMeans(), 0
        self.start()
        return values


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether no tensor (except scalars) has a NaN or an infinity."""
    checks = [torch.isfinite(t).all() for t in tensors if t.ndim and t.is_floating_point()]
    return not checks or bool(torch.stack(checks).all())
