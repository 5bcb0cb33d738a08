"""Grouped matrix products: consecutive rows, each group with its own matrix.

M rows, sorted by group; E groups, of which group e ends before row `ends[e]` (some may be empty).

On CUDA in bfloat16 this is torch's `grouped_mm`, one kernel without a host synchronisation (from
compute capability 9.0 on; for older cards torch has a loop, which synchronises). Elsewhere it is a
loop over groups inside a custom operator, because torch's supports neither float32 under
`torch.compile` and on the meta device, nor odd widths. The loop runs on the host, which needs the
bounds: pass `ends` on the CPU if several products have the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from strawberry.model.operators import operator

WITH_KERNEL: set[str] = {"cuda"}
"""Device types on which torch's `grouped_mm` is a kernel in bfloat16."""


def grouped_linear(x: Tensor, bank: Tensor, ends: Tensor) -> Tensor:
    """`y[i] = bank[e] x[i]` for each row i of group e.

    Args:
        x: (M, in_features), its rows sorted by group.
        bank: (E, out_features, in_features).
        ends: (E,) int32 or int64, the end of each group; the last is M. On the CPU, or on the
            device of `x`.

    Returns:
        (M, out_features), in autocast's dtype if enabled.
    """
    dtype = _dtype(x)
    x, bank = x.to(dtype), bank.to(dtype)
    if by_kernel(x, bank):
        return kernel_linear(x, bank, ends.to(x.device))
    result: Tensor = _grouped_rows(x, bank, ends)
    return result


def by_kernel(x: Tensor, bank: Tensor) -> bool:
    """Return whether `grouped_linear` uses torch's kernel, without `ends` on the host."""
    return x.device.type in WITH_KERNEL and fits_kernel(_dtype(x), bank.shape)


def _dtype(x: Tensor) -> torch.dtype:
    """Dtype of the product: that of `x`, or autocast's."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def fits_kernel(dtype: torch.dtype, shape: torch.Size) -> bool:
    """Return whether torch's kernel supports a bank: bfloat16, rows of whole 16-byte units."""
    return dtype == torch.bfloat16 and shape[1] % 8 == 0 and shape[2] % 8 == 0


def kernel_linear(x: Tensor, bank: Tensor, ends: Tensor) -> Tensor:
    """`grouped_linear` with torch's kernel."""
    return F.grouped_mm(x, bank.mT, offs=ends.to(torch.int32))


@operator(fake=lambda x, bank, _: x.new_empty(x.shape[0], bank.shape[1]))
def _grouped_rows(x: Tensor, bank: Tensor, ends: Tensor) -> Tensor:
    out = x.new_empty(x.shape[0], bank.shape[1])
    start = 0
    for matrix, end in zip(bank, ends.tolist(), strict=True):
        if end > start:
            torch.mm(x[start:end], matrix.mT, out=out[start:end])
        start = end
    return out


@operator(fake=lambda y, x, ends: x.new_empty(ends.shape[0], y.shape[1], x.shape[1]))
def _grouped_outer(y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    """The sum of `y[i] x[i]^T` over each group: (M, out), (M, in) -> (E, out, in)."""
    out = x.new_empty(ends.shape[0], y.shape[1], x.shape[1])
    start = 0
    for matrix, end in zip(out, ends.tolist(), strict=True):
        if end > start:
            torch.mm(y[start:end].mT, x[start:end], out=matrix)
        else:
            matrix.zero_()
        start = end
    return out


def _keep_linear(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG001 (the same)
    ctx.save_for_backward(*inputs)


def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, bank, ends = ctx.saved_tensors
    need_x, need_bank, _ = ctx.needs_input_grad
    return (
        _grouped_rows(grad, bank.mT, ends) if need_x else None,
        _grouped_outer(grad, x, ends) if need_bank else None,
        None,
    )


torch.library.register_autograd(_grouped_rows, _linear_backward, setup_context=_keep_linear)


@register_flop_formula(torch.ops.strawberry.grouped_rows)
def _linear_flops(x: torch.Size, bank: torch.Size, *_: Any, **__: Any) -> int:
    """FLOPs of every row times one matrix, two for each multiply-add."""
    return 2 * x[0] * bank[1] * bank[2]


@register_flop_formula(torch.ops.strawberry.grouped_outer)
def _outer_flops(y: torch.Size, x: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * y[0] * y[1] * x[1]


@register_flop_formula(torch.ops.aten._grouped_mm)  # noqa: SLF001 (the operator's name)
def _kernel_flops(left: torch.Size, right: torch.Size, *_: Any, **__: Any) -> int:
    """Torch's kernel: rows by a bank (M, K) (E, K, N), or the sums over groups (K, M) (M, N)."""
    return 2 * left[0] * left[1] * right[-1]
