"""The global random generators: Python's, NumPy's and torch's, saved and put back as one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from strawberry.train.parallel.world import World


def seed(value: int) -> None:
    """Seed them all."""
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
    """Torch's generators: the CPU's and each CUDA device's."""
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda:{i}": s for i, s in enumerate(states)}}


def restore(state: Mapping[str, Any], saved: Mapping[str, Tensor]) -> None:
    """Put back what `numbers` and `tensors` gave."""
    version, values, gauss = state["python"]
    random.setstate((version, tuple(values), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(saved["cpu"])
    for key, value in saved.items():
        if key.startswith("cuda:") and int(key[5:]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(value, int(key[5:]))


def of_ranks(world: World) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The states of all ranks, on every rank: `numbers` of each, and all `tensors` by rank."""
    every = world.gather((numbers(), tensors()))
    named = {f"{rank}/{key}": t for rank, (_, own) in enumerate(every) for key, t in own.items()}
    return [plain for plain, _ in every], named


def restore_rank(
    world: World, step: int, plain: list[dict[str, Any]], saved: Mapping[str, Tensor]
) -> None:
    """Put back this rank's part of what `of_ranks` gave; a rank that is new begins anew."""
    if world.rank >= len(plain):
        torch.manual_seed(torch.initial_seed() + step * world.size)
        return
    prefix = f"{world.rank}/"
    own = {k.removeprefix(prefix): t for k, t in saved.items() if k.startswith(prefix)}
    restore(plain[world.rank], own)
