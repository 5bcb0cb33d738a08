"""The global random generators: Python's, NumPy's and torch's, saved and put back as one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
