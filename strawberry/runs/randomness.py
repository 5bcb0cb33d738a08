"""Save and restore the global random generators of Python, NumPy and torch."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from strawberry.ranks.world import World


def seed(value: int) -> None:
    """Seed all of them."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def numbers() -> dict[str, Any]:
    """Python's and NumPy's global generators, as JSON."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    numpy = [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]
    return {
        "python": [version, list(numbers), gauss],
        "numpy": numpy,
    }


def tensors() -> dict[str, Tensor]:
    """Torch's generators: the CPU's and each accelerator's."""
    return {
        "cpu": torch.get_rng_state(),
        **{name: module.get_rng_state(*which) for name, module, which in _accelerators()},
    }


def _accelerators() -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """For each: its name, its module, and the arguments that select it."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return
    module = torch.get_device_module(kind)
    for index in range(torch.accelerator.device_count()):
        yield f"{kind.type}:{index}", module, () if kind.type == "mps" else (index,)


@contextlib.contextmanager
def held(device: torch.device) -> Iterator[None]:
    """Restore Python's, NumPy's and torch's generators after this context.

    Torch's are those of the CPU and of `device`. MPS is left out: torch's context asks it for a
    device's generator, but it has only one.
    """
    devices = [] if device.type in ("cpu", "mps") else [device]
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def restore(state: Mapping[str, Any], saved: Mapping[str, Tensor]) -> None:
    """Restore the results of `numbers` and `tensors`."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(saved["cpu"])
    for name, module, which in _accelerators():
        if name in saved:
            module.set_rng_state(saved[name], *which)


def of_ranks(world: World) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The states of all ranks, on every rank: `numbers` of each, and all `tensors` by rank."""
    every = world.gather((numbers(), tensors()))
    named = {f"{rank}/{key}": t for rank, (_, own) in enumerate(every) for key, t in own.items()}
    return [plain for plain, _ in every], named


def restore_rank(
    world: World, step: int, plain: list[dict[str, Any]], saved: Mapping[str, Tensor]
) -> None:
    """Restore this rank's part of `of_ranks`; a new rank starts with fresh generators."""
    if world.rank >= len(plain):
        torch.manual_seed(torch.initial_seed() + step * world.size)
        return
    prefix = f"{world.rank}/"
    own = {k.removeprefix(prefix): t for k, t in saved.items() if k.startswith(prefix)}
    restore(plain[world.rank], own)
