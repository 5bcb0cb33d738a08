"""Custom operators, which compilation and counting see as one operation.

`torch.library.custom_op` does the same, but imports torch's compiler at the first call, which takes
every command more than a second. Each call also runs ten times as much Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("strawberry", "FRAGMENT")  # type: ignore[no-untyped-call]


def operator(fake: Callable[..., Tensor]) -> Callable[[Callable[..., Tensor]], Any]:
    """A decorator that turns a function without side effects into `torch.ops.strawberry.NAME`.

    Args:
        fake: returns a result of the right shape, dtype and device, for the same arguments.

    Returns:
        The decorator; its result is called like the function, whose parameters and result must be
        annotated. The function's result must be newly allocated.
    """

    def make(function: Callable[..., Tensor]) -> Any:
        name = function.__name__.strip("_")
        schema = torch.library.infer_schema(function, mutates_args=(), op_name=name)
        _LIBRARY.define(schema)  # type: ignore[no-untyped-call]
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"strawberry::{name}", fake)
        return getattr(torch.ops.strawberry, name).default

    return make
