"""Host synchronisation by operator and arguments.

Based on CUDA's kernels in torch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from strawberry.check.pretend.stalls import Stalls

ACTIVE: list[Stalls] = []
"""The active recorders; the last one records."""

GENERATORS: set[int] = set()
"""Generators of the device, by address; torch passes kernels another object for them."""

PINNED: dict[int, Tensor] = {}
"""Pinned memory, by address."""

SIZED_BY_VALUES: Final = (
    "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "unique_dim_consecutive", "bincount",
)  # fmt: skip
"""The host needs the size of the result."""
ASKED: Final = ("equal", "multinomial", "histc")
"""The host receives a value, or checks values."""
INDEXED: Final = ("index", "_unsafe_index", "_index_put_impl_")
"""Operators that also accept CPU indices and masks."""


def read(operator: str) -> None:
    """The host waits for a value."""
    if ACTIVE:
        ACTIVE[-1].note("read", operator)


def copied(source: Tensor, target: Tensor, non_blocking: bool) -> None:
    """A copy between two tensors, one of them on the device."""
    if not ACTIVE or not source.numel():
        return
    if source.device.type == "cpu" and not (non_blocking and is_pinned(source)):
        ACTIVE[-1].note("copy", "aten::_to_copy")
    elif target.device.type == "cpu" and not non_blocking:
        ACTIVE[-1].note("read", "aten::_to_copy")


def note_copy(tensor: Tensor) -> None:
    """A tensor to create on the device."""
    if ACTIVE and tensor.dtype in (torch.float64, torch.complex128):
        ACTIVE[-1].note("float64", str(tensor.dtype))


def rule(full: str) -> Callable[..., None] | None:
    """The stall of an operator; None if it never waits."""
    short = full.removeprefix("aten::").partition(".")[0]
    if short in SIZED_BY_VALUES or short in ASKED:
        return lambda *_, **__: read(full)
    if short == "repeat_interleave":
        return lambda *_, output_size=None: None if output_size is not None else read(full)
    if short == "_grouped_mm":  # one kernel for bfloat16, a loop over groups for all else
        return lambda x, *_, **__: None if x.dtype == torch.bfloat16 else read(full)
    if short in INDEXED:
        return lambda tensor, indices, *rest, **_: _indexed(full, tensor, indices, *rest)
    return None


def _indexed(
    full: str,
    tensor: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor | None = None,
    accumulate: bool = False,
    *_: Any,
) -> None:
    """A mask has to be counted unless it is filled with one value; a CPU index has to be copied."""
    given = [index for index in indices if index is not None]
    for index in given:
        if index.device != tensor.device:
            copied(index, tensor, non_blocking=False)
    masks = [index for index in given if index.dtype in (torch.bool, torch.uint8)]
    filled = isinstance(values, Tensor) and values.ndim == 0 and not accumulate and len(given) == 1
    if any(mask.device == tensor.device for mask in masks) and not filled:
        read(full)


def strict(operator: Any) -> Callable[[Sequence[Tensor]], bool]:
    """Return whether CPU tensors among an operator's arguments are an error.

    A CPU scalar counts as a Python number if every result has the shape of one argument.
    """
    short = operator._schema.name.removeprefix("aten::")  # noqa: SLF001
    if short in INDEXED:
        return lambda _: False
    elementwise = torch.Tag.pointwise in operator.tags
    elementwise |= short.removesuffix("_") in ("masked_fill", "fill", "where", "index_fill")
    return lambda foreign: not elementwise or any(tensor.ndim for tensor in foreign)


def host_generator(generator: torch.Generator) -> torch.Generator:
    """The generator for a CPU kernel; raises if it is not of the device."""
    if generator._cdata not in GENERATORS:  # type: ignore[attr-defined]  # noqa: SLF001
        raise RuntimeError("Expected a 'pretend' device type for generator but found 'cpu'")
    return generator


def is_pinned(tensor: Tensor, device: torch.device | None = None) -> bool:  # noqa: ARG001 (torch's own)
    """Return whether a CPU tensor is in memory from `pin`."""
    return tensor.untyped_storage().data_ptr() in PINNED


def pin(tensor: Tensor, device: torch.device | None = None) -> Tensor:  # noqa: ARG001 (torch's own)
    """A pinned copy."""
    copy = tensor.clone()
    PINNED[copy.untyped_storage().data_ptr()] = copy
    return copy
