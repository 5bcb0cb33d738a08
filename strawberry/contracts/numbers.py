"""Numerical helpers for components."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

WITHOUT_FLOAT64 = {"mps"}
"""Device types without float64."""


def exact(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device without it: for values that float32 rounds too much."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or unchanged if wider: for statistics that half precision would spoil."""
    if x.dtype is torch.float32:
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


def has_values(x: Tensor) -> bool:
    """Return whether `x` has values: not on meta, where only shapes and dtypes are counted."""
    return not (x.is_meta or isinstance(x, FakeTensor))


@torch.no_grad()
def draw(tensor: Tensor, std: float, *, uniform: bool) -> None:
    """Fill a tensor at random with mean 0 and this deviation; without values, do nothing."""
    if not has_values(tensor):
        return
    if uniform:
        tensor.uniform_(-(3**0.5) * std, 3**0.5 * std)
    else:
        tensor.normal_(0.0, std)


def drawn(*shape: int, std: float, uniform: bool) -> nn.Parameter:
    """A parameter of that shape, filled as `draw` does."""
    parameter = nn.Parameter(torch.empty(shape))
    draw(parameter, std, uniform=uniform)
    return parameter


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast on that device, for sums that half precision would spoil."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def hashed(*numbers: Tensor | int) -> Tensor:
    """Uniform numbers of [0, 1) that are a function of whole numbers, which are broadcast: float32.

    The same on every device, and however a batch is divided. The mixing is that of splitmix64
    (Steele et al. 2014, doi 10.1145/2660193.2660195).
    """
    devices = [number.device for number in numbers if isinstance(number, Tensor)]
    mixed = torch.zeros((), dtype=torch.int64, device=devices[0] if devices else None)
    for number in numbers:
        mixed = _mixed(mixed * 0x2545F4914F6CDD1D + number + 0x1E3779B97F4A7C15)
    return ((mixed >> 24) & 0xFFFFFF).float() / (1 << 24)


def _mixed(x: Tensor) -> Tensor:
    """The bits of int64, mixed; products wrap around."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x
