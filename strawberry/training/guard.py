"""Reaction to a step with a non-finite loss or gradient: `train.on_nonfinite`.

- `stop`: the run ends before the weights change; the last checkpoint is from before.
- `skip`: the update is skipped and the run continues; after `IN_A_ROW` such steps in a row it ends.
- `back_off`: the run returns to its newest checkpoint and continues at half the learning rate;
  after `BACK_OFFS` halvings it ends. This also repairs damaged weights.

In any case `nonfinite/` of the run folder keeps the step's batches, and non-finite weights never
reach a checkpoint.

Ranks that share a batch decide alike, because the criteria are sums over them: a non-finite value
on one is so on all. The kept batches are the rows of the main rank.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor

from strawberry.contracts import to_local
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.training.recent import Diverged, RecentSums

if TYPE_CHECKING:
    from strawberry.training.session import Session

Verdict: TypeAlias = Literal["take", "skip", "again"]

IN_A_ROW = 10
"""Number of skipped steps in a row after which `skip` gives up."""

BACK_OFFS = 5
"""Number of times that `back_off` halves the learning rate."""

KEPT_STEPS = 20
"""Maximum number of steps whose batches are kept."""


class Guard:
    """Judges each step before the weights change, and reacts as the recipe says.

    Args:
        session: the run.
        recent: its sums.
        restore: returns the session to its newest checkpoint.
    """

    def __init__(self, session: Session, recent: RecentSums, restore: Callable[[], object]) -> None:
        self.session = session
        self.recent = recent
        self.policy = session.recipe.train.on_nonfinite
        # Elsewhere than on a CPU, looking means waiting for the device: `stop` looks at log rows.
        self.each_step = self.policy != "stop" or session.machine.device.type == "cpu"
        self._restore = restore
        self._good = session.step  # all steps up to this one are known to have been finite
        self._in_a_row = 0
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def begin_step(self) -> None:
        """Remember values that a skipped step must not change."""
        if self.policy == "skip":
            self.recent.mark()
            buffers = self.session.model.buffers()
            self._buffers = [(buffer, buffer.clone()) for buffer in buffers]

    def judge(self) -> Verdict:
        """Judge the step after its gradient is computed; raises Diverged if the run ends.

        `take`: make its update. `skip`: skip it. `again`: the session is back at its newest
        checkpoint.
        """
        step = self.session.step + 1
        if not self.each_step:
            return "take"
        if self.recent.finite():
            self._good, self._in_a_row = step, 0
            return "take"
        self._keep(step)
        if self.policy == "back_off":
            self._go_back(Diverged(step))
            return "again"
        self._in_a_row += 1
        if self.policy == "stop" or self._in_a_row == IN_A_ROW:
            raise Diverged(step)
        self.session.warn(f"step {step} is not finite and is skipped")
        self.recent.drop_step()
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self._good = step
        return "skip"

    def check(self) -> None:
        """Raises Diverged if a step so far was not finite; for runs whose steps aren't judged."""
        if not self.recent.finite():
            self._keep(self.session.step)
            raise Diverged(self.session.step)
        self._good = self.session.step

    def save(self) -> bool:
        """Save a checkpoint; False if weights are damaged and the session was reset instead.

        Raises Diverged if the run has to end.
        """
        try:
            self.session.save(self.recent)
        except Diverged as error:
            self._keep(self.session.step)
            if self.policy != "back_off":
                raise
            self._go_back(error)
            return False
        self._good = self.session.step
        return True

    def _go_back(self, error: Diverged) -> None:
        """Restore the newest checkpoint, at half the learning rate; raises `error` in the end.

        The rate is part of a checkpoint, so a killed run repeats the same course.
        """
        session = self.session
        scale = session.optimizers.scale / 2
        if scale < 0.5**BACK_OFFS:
            raise error
        session.optimizers.zero_grad()
        self._restore()
        session.optimizers.scale = scale
        self._good = session.step
        session.warn(
            f"step {error.step} is not finite; returning to step {session.step}, with the "
            f"learning rate scaled by {scale:g}"
        )

    def _keep(self, last: int) -> None:
        """Write the batches since the last good step; a full disk only causes a warning."""
        session = self.session
        spoilt = spoilt_weights(session)
        if not session.world.main:
            return
        folder = session.run.path / "nonfinite"
        for step in range(self._good + 1, last + 1):
            if (folder / f"{step_name(step)}.json").exists():
                continue
            if len(list(folder.glob("*.json"))) >= KEPT_STEPS:
                return
            try:
                keep_step(session, folder, step, spoilt)
            except (OSError, StrawberryError) as error:
                session.warn(f"{folder}: can't keep the batch: {error}")
                return


def spoilt_weights(session: Session) -> list[str]:
    """The names of the non-finite weights, on any rank; all ranks have to call it."""
    own = [
        name
        for name, parameter in session.model.named_parameters()
        if not torch.isfinite(to_local(parameter)).all()
    ]
    return list(dict.fromkeys(name for names in session.world.gather(own) for name in names))


def keep_step(session: Session, folder: Path, step: int, spoilt: list[str]) -> None:
    """Write `step-N.safetensors`, the ids and targets of each micro-batch, and `step-N.json`.

    The tensors are `x0`, `y0`, `x1`, ... (B, T); the JSON has the names of the `spoilt` weights,
    and the first and last row of the data of each micro-batch.
    """
    folder.mkdir(exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for part, (x, y) in enumerate(session.batches.train(step - 1)):
        tensors |= {f"x{part}": x.cpu().contiguous(), f"y{part}": y.cpu().contiguous()}
    report: dict[str, Any] = {
        "step": step,
        "rows": [[each.start, each.stop - 1] for each in session.batches.numbers(step - 1)],
        "on_nonfinite": session.recipe.train.on_nonfinite,
        "weights": spoilt,
    }
    name = step_name(step)
    save_file(tensors, folder / f"{name}.safetensors")
    write_atomic(folder / f"{name}.json", json.dumps(report, indent=1) + "\n")


def step_name(step: int) -> str:
    """The base name of a step's files."""
    return f"step-{step:08d}"
