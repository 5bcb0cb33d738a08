"""What becomes of a step whose loss or gradient is not finite: `train.on_nonfinite`.

- `stop`: the run ends before the weights change; the last checkpoint is from before.
- `skip`: the step's update is left out and the run goes on; after `IN_A_ROW` such steps on end it
  ends.
- `back_off`: the run goes back to its newest checkpoint and on from there at half the learning
  rate; after `BACK_OFFS` halvings it ends. Weights that are spoilt already are mended by this too.

Whatever is chosen, the step's batches are kept in `nonfinite/` of the run folder, and weights that
are not finite never reach a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from strawberry.errors import StrawberryError
from strawberry.train.recent import Diverged, Recent
from strawberry.train.run import write_atomic

if TYPE_CHECKING:
    from strawberry.train.loop import Session

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

    def __init__(self, session: Session, recent: Recent, restore: Callable[[], object]) -> None:
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
            model = self.session.model
            ours = {id(p) for p in model.parameters()}
            kept = [t for t in model.state_dict(keep_vars=True).values() if id(t) not in ours]
            self._buffers = [(buffer, buffer.clone()) for buffer in kept]

    def takes(self) -> bool:
        """Whether the step's update may be made; if not, it has been dealt with.

        Raises Diverged where the run is to end, and WentBack where it is to go on from before.
        """
        step = self.session.step + 1
        if not self.each_step:
            return True
        if self.recent.finite():
            self._good, self._in_a_row = step, 0
            return True
        self._keep(step)
        if self.policy == "back_off":
            self._go_back(Diverged(step))
        self._in_a_row += 1
        if self.policy == "stop" or self._in_a_row == IN_A_ROW:
            raise Diverged(step)
        self.session.warn(f"step {step} is not finite and is skipped")
        self.recent.drop_step()
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self._good = step
        return False

    @contextlib.contextmanager
    def checking(self) -> Iterator[None]:
        """Around what raises Diverged of a step that has been taken: saving, and log rows."""
        try:
            yield
        except Diverged as error:
            self._keep(self.session.step)
            if self.policy == "back_off":
                self._go_back(error)
            raise
        self._good = self.session.step

    def _go_back(self, error: Diverged) -> None:
        """Restore the newest checkpoint at half the rate; raises WentBack, or `error` in the end.

        The scale is part of a checkpoint, so that a run that is killed goes the same way again.
        """
        session = self.session
        scale = session.optimizers.scale / 2
        if scale < 0.5**BACK_OFFS:
            raise error
        at = error.step
        session.optimizers.zero_grad()
        self._restore()
        session.optimizers.scale = scale
        self._good = session.step
        session.warn(
            f"step {at} is not finite; back to step {session.step}, and on at {scale:g} of the "
            "learning rate"
        )
        raise WentBack

    def _keep(self, last: int) -> None:
        """Write the batches of the steps since the last good one; a full disk is only said."""
        session = self.session
        folder = session.run.path / "nonfinite"
        for step in range(self._good + 1, last + 1):
            if len(list(folder.glob("*.json"))) >= KEPT_STEPS:
                return
            try:
                keep_step(session, folder, step)
            except (OSError, StrawberryError) as error:
                session.warn(f"{folder}: the batch can't be kept: {error}")
                return


class WentBack(Exception):  # noqa: N818 (not an error: the run goes on)
    """The session was put back to its newest checkpoint."""


def keep_step(session: Session, folder: Path, step: int) -> None:
    """Write `step-N.safetensors`, the ids and targets of each micro-batch, and `step-N.json`.

    The tensors are `x0`, `y0`, `x1`, ... (B, T); the JSON names the tensors of the model and the
    gradients that are not finite.
    """
    folder.mkdir(exist_ok=True)
    parts = session.recipe.train.gradient_accumulation_steps
    numbers = [(step - 1) * parts + part for part in range(parts)]
    tensors: dict[str, Tensor] = {}
    for part, number in enumerate(numbers):
        x, y = session.batches.train(number)
        tensors |= {f"x{part}": x.cpu().contiguous(), f"y{part}": y.cpu().contiguous()}
    named = dict(session.model.named_parameters())
    report: dict[str, Any] = {
        "step": step,
        "micro_batches": numbers,
        "on_nonfinite": session.recipe.train.on_nonfinite,
        "gradients": [n for n, p in named.items() if p.grad is not None and not _finite(p.grad)],
        "weights": [name for name, p in named.items() if not _finite(p)],
    }
    name = f"step-{step:08d}"
    save_file(tensors, folder / f"{name}.safetensors")
    write_atomic(folder / f"{name}.json", json.dumps(report, indent=1) + "\n")


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
