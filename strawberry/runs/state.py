"""An optimizer's state as tensors by path and JSON, including lists, tuples and mappings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from strawberry.errors import StrawberryError

PLAIN = (bool, int, float, str, type(None))
"""Types that JSON gives back unchanged."""


def pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; its tensors go to `tensors` by their path, and JSON holds the path.

    Raises StrawberryError if anything in it is neither a tensor nor plain.
    """
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, (list, tuple)):
        items = [pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {k: pack(item, f"{path}/{k}", tensors) for k, item in value.items()}}
    if isinstance(value, PLAIN) and not isinstance(value, enum.Enum):
        return value
    kind = type(value).__name__
    raise StrawberryError(f"optimizer state {path} is a {kind}, which can't be saved")


def unpack(packed: Any, tensors: Mapping[str, Tensor], place: Callable[[Tensor], Tensor]) -> Any:
    """The argument of `pack`; `place` moves each tensor to its device."""
    if isinstance(packed, list):
        return [unpack(item, tensors, place) for item in packed]
    if isinstance(packed, dict):
        ((form, inner),) = packed.items()
        if form == "tensor":
            return place(tensors[inner])
        if form == "tuple":
            return tuple(unpack(item, tensors, place) for item in inner)
        return {key: unpack(item, tensors, place) for key, item in inner.items()}
    return packed
