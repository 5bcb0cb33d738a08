"""Check disk space and memory for a run before its first step."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING

import torch

from strawberry.errors import StrawberryError
from strawberry.figures import readable
from strawberry.ranks.world import by_main
from strawberry.runs.folder import RunFolder
from strawberry.training.optimizers import Optimizers, state_bytes

if TYPE_CHECKING:
    from torch import nn

    from strawberry.recipe.spec import TrainSpec


@by_main
def check_disk(
    run: RunFolder, train: TrainSpec, model: nn.Module, optimizers: Optimizers, beside: int = 0
) -> None:
    """Raises StrawberryError if the run's checkpoints would not fit on the disk.

    `beside` are the bytes of each that are neither weights nor optimizer state. For a moment one
    more is there than is kept: the new one is whole before the old one goes.
    """
    each = (
        beside + _bytes_of(model) + state_bytes([assignment for assignment, _ in optimizers.parts])
    )
    saves = 1 + (train.max_iters // train.checkpoint_interval if train.checkpoint_interval else 0)
    count = min(saves, train.keep_checkpoints + 1) + train.keep_best + len(train.checkpoint_steps)
    held = sum(f.stat().st_size for f in run.checkpoints.rglob("*") if f.is_file())
    free = shutil.disk_usage(run.path).free
    if each * count > free + held:
        raise StrawberryError(
            f"{run.path}: {count} checkpoints of {readable(each)} need "
            f"{readable(each * count - held)}, but only {readable(free)} are free. Free "
            "some space, name a --run-dir on another disk, or lower train.keep_checkpoints"
        )


def check_memory(model: nn.Module, device: torch.device, shares: int = 1) -> None:
    """Raises StrawberryError if weights and gradients alone exceed the device's memory.

    `model` may be on the meta device: its values are not read. `shares` is the number of ranks
    among which it is sharded.
    """
    needed, total = 2 * _bytes_of(model) // shares, total_memory(device)
    if total is not None and needed > total:
        raise StrawberryError(
            f"weights and gradients need {readable(needed)}, but {device} has only "
            f"{readable(total)}; make the model smaller (`strawberry build` shows its "
            "memory)"
        )


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory of a device; None if unknown."""
    with contextlib.suppress(RuntimeError):  # that of devices whose memory is the host's
        if device.type != "cpu":
            return int(torch.accelerator.get_memory_info(device)[1])
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory(device: torch.device) -> int | None:
    """Peak memory so far: of tensors on an accelerator that reports it, else of the process.

    None if neither is known.
    """
    with contextlib.suppress(RuntimeError):  # a device that counts nothing
        if device.type != "cpu" and (most := torch.accelerator.max_memory_allocated(device)):
            return most
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _bytes_of(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())
