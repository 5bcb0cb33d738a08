"""What becomes of a step whose loss or gradient is not finite: `train.on_nonfinite`.

- `stop`: the run ends before the weights change; the last checkpoint is from before.
- `skip`: the step's update is left out and the run goes on; after `IN_A_ROW` such steps on end it
  ends.
- `back_off`: the run goes back to its newest checkpoint and on from there at half the learning
  rate; after `BACK_OFFS` halvings it ends. Weights that are spoilt already are mended by this too.

Whatever is chosen, the step's batches are kept in `nonfinite/` of the run folder, and weights that
are not finite never reach a checkpoint.

Where ranks share a batch they judge alike, since what is looked at is summed over them: what is not
finite on one is so on all. The batches that are kept are the rows of the main one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor

from strawberry.contracts import local
from strawberry.errors import StrawberryError
from strawberry.files.atomic import write_atomic
from strawberry.training.recent import Diverged, RecentSums

if TYPE_CHECKING:
    from strawberry.training.session import Session

Verdict: TypeAlias = Literal["take", "skip", "again"]

IN_A_ROW = 10
"""Skipped steps on end after which `skip` gives up."""

BACK_OFFS = 5
"""Times that `back_off` halves the learning rate."""

KEPT_STEPS = 20
"""Steps whose batches are kept at most."""


class Guard:
    """Judges each step before the weights change, and does what the recipe says.

    Args:
        session: the run.
        recent: its sums.
        restore: puts the session back to its newest checkpoint.
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
        """Remember what a skipped step must not change."""
        if self.policy == "skip":
            self.recent.mark()
            buffers = self.session.model.buffers()
            self._buffers = [(buffer, buffer.clone()) for buffer in buffers]

    def judge(self) -> Verdict:
        """What becomes of the step whose gradient is there; raises Diverged where the run ends.

        `take`: make its update. `skip`: leave it out. `again`: the session is back at its newest
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
        """Raises Diverged if a step so far was not finite; for where steps aren't judged."""
        if not self.recent.finite():
            self._keep(self.session.step)
            raise Diverged(self.session.step)
        self._good = self.session.step

    def save(self) -> bool:
        """Save a checkpoint; False if weights are spoilt, and the session went back for it.

        Raises Diverged where the run is to end.
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
        """Restore the newest checkpoint, at half the rate; raises `error` in the end.

        The rate is part of a checkpoint, so that a run that is killed goes the same way again.
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
        """Write the batches of the steps since the last good one; a full disk is only said."""
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
    """The names of the weights that are not finite, on any rank; all have to ask."""
    own = [
        name
        for name, parameter in session.model.named_parameters()
        if not torch.isfinite(local(parameter)).all()
    ]
    return list(dict.fromkeys(name for names in session.world.gather(own) for name in names))


def keep_step(session: Session, folder: Path, step: int, spoilt: list[str]) -> None:
    """Write `step-N.safetensors`, the ids and targets of each micro-batch, and `step-N.json`.

    The tensors are `x0`, `y0`, `x1`, ... (B, T); the JSON has the names of the `spoilt` weights,
    and which rows of the data each micro-batch has: from the first up to the last.
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
    """What the files of a step are called."""
    return f"step-{step:08d}"
