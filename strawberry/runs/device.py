"""Resolve device, dtype, compilation and threads."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from strawberry.errors import RecipeError

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe, TrainSpec


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a run; `compiled` is true, false, or `blocks` for each block by itself."""

    device: torch.device
    dtype: torch.dtype
    compiled: bool | Literal["blocks"]

    def autocast(self) -> AbstractContextManager[object]:
        """Autocast to the run's dtype; nothing for float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def synchronize(self) -> None:
        """Wait for the device, before time is measured."""
        if self.device.type != "cpu":
            which = () if self.device.type == "mps" else (self.device,)  # there is one MPS
            torch.get_device_module(self.device).synchronize(*which)


def machine_for(recipe: Recipe) -> Machine:
    """Resolve `train.device`, `dtype` and `compile` for this machine; raises RecipeError.

    Sets the process's number of threads and, on CUDA, the precision of its products.
    """
    train = recipe.train
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    device = _device(train)
    # `auto` means bfloat16 and compilation on CUDA alone; elsewhere float32, uncompiled.
    if train.dtype == "auto":
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    else:
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[train.dtype]
    compiled = device.type == "cuda" if train.compile == "auto" else train.compile
    if device.type == "cuda":  # only CUDA has TensorFloat32
        torch.set_float32_matmul_precision("high")
    return Machine(device, dtype, compiled)


def _device(train: TrainSpec) -> torch.device:
    name = train.device
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        name = "cpu" if accelerator is None else accelerator.type
    try:
        device = torch.device(name)
    except RuntimeError as error:
        message = f"unknown device {name!r}; write auto, cpu, cuda, cuda:0 or mps"
        raise RecipeError([train.at.problem("device", message)]) from error
    module = getattr(torch, device.type, None)  # of any device that torch knows, plugins of it too
    if module is None or not module.is_available():
        message = f"{name!r} is not available here; write auto or cpu"
        raise RecipeError([train.at.problem("device", message)])
    if device.index is not None and device.index >= (count := module.device_count()):
        message = f"{name!r} is not here: there are {count}, numbered from 0"
        raise RecipeError([train.at.problem("device", message)])
    return device
