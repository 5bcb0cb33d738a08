"""Tensors of the pretend device over host memory, and back, without a copy.

Uses DLPack: a capsule holds the memory address and the device; the device is rewritten in between.
"""

from __future__ import annotations

import ctypes
from typing import Final

import torch
from torch import Tensor

_HOST: Final = 1  # kDLCPU
_OUTSIDE: Final = 12  # kDLExtDev, which torch takes for PrivateUse1
_DEVICE_AT: Final = 8  # in a DLTensor, behind the pointer to the data

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def on_host(tensor: Tensor) -> Tensor:
    """A CPU tensor over the memory of a device tensor."""
    return _moved(tensor, _HOST)


def on_device(tensor: Tensor) -> Tensor:
    """A device tensor over the memory of a CPU tensor."""
    return _moved(tensor, _OUTSIDE)


def _moved(tensor: Tensor, device: int) -> Tensor:
    capsule = torch._C._to_dlpack(tensor)  # noqa: SLF001
    where = _pointer(capsule, b"dltensor") + _DEVICE_AT
    (ctypes.c_int32 * 2).from_address(where)[:] = [device, 0]
    moved: Tensor = torch._C._from_dlpack(capsule)  # noqa: SLF001
    return moved
