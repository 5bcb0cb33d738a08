"""The matrix products that torch's counter can't see: those inside of Triton kernels.

A kernel is one opaque call to `FlopCounterMode`. A custom operator without any computation
accompanies it, and its formula is the given number of FLOPs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


@torch.library.custom_op("strawberry_fla::products", mutates_args=())
def products(beside: Tensor, flops: int) -> Tensor:  # noqa: ARG001 (its formula has it)
    """Do nothing; counts as this many FLOPs of a kernel."""
    return beside.new_empty(0)


@products.register_fake
def _(beside: Tensor, flops: int) -> Tensor:  # noqa: ARG001
    return beside.new_empty(0)


@register_flop_formula(torch.ops.strawberry_fla.products)
def _flops(_beside: torch.Size, flops: int, *_: Any, **__: Any) -> int:
    return flops


def seen(y: Tensor, flops: int) -> Tensor:
    """`y`, with this many FLOPs counted forward, and twice as many backward."""
    result: Tensor = _Seen.apply(y, flops)  # type: ignore[no-untyped-call]
    return result


def stand_in(width: int, *given: Tensor) -> Tensor:
    """On the meta device, what a kernel makes of `given` (B, T, ...): an empty (B, T, width).

    They are saved for the backward pass, as the kernel saves them.
    """
    result: Tensor = _StandIn.apply(width, *given)  # type: ignore[no-untyped-call]
    return result


class _Seen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, flops: int) -> Tensor:
        ctx.flops = flops
        products(y.detach(), flops)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        products(gradient, 2 * ctx.flops)
        return gradient, None


class _StandIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, width: int, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        return given[0].new_empty(*given[0].shape[:2], width)

    @staticmethod
    def backward(ctx: Any, _gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(torch.empty_like(tensor) for tensor in ctx.saved_tensors)
