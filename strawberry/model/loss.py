"""Cross-entropy of a linear head, without keeping the logits of all tokens.

N tokens, width C, vocabulary V. The plain form keeps (N, V) logits and as much again for their
gradient. Here tokens go through the head a chunk at a time, and a chunk's gradient is taken as
soon as its loss is known, so that memory holds one chunk of logits. The arithmetic is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.model.contracts import wide

IGNORE = -1
"""Targets of this value count for nothing."""

CHUNK_BYTES = {"cpu": 8 << 20}
"""Size of a chunk's float32 logits: on a CPU what its caches hold, elsewhere 512 MiB."""


def head_logits(h: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    """`h W^T`, bounded to +-softcap by `softcap * tanh(. / softcap)` where asked for."""
    logits = F.linear(h, weight)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def linear_cross_entropy(
    h: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Mean cross-entropy over the targets that are not ignored, in nats.

    Args:
        h: (N, C) hidden states.
        weight: (V, C) head.
        targets: (N,) int64 token ids, -1 to ignore.
        softcap: bound on the logits, or None.

    Returns:
        A float32 scalar; 0 if every target is ignored.
    """
    kind = h.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        h, weight = h.to(dtype), weight.to(dtype)
    result: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        h, weight, targets, softcap, torch.is_grad_enabled()
    )
    return result


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, targets: Tensor, cap: float | None, training: bool
    ) -> Tensor:
        valid = targets != IGNORE
        count = valid.sum().clamp(min=1)
        need_h, need_weight = (training and need for need in ctx.needs_input_grad[:2])
        grad_h = torch.empty_like(h) if need_h else None
        accumulate = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=accumulate) if need_weight else None
        total = wide(h.new_zeros(()))
        rows = max(16, CHUNK_BYTES.get(h.device.type, 512 << 20) // (4 * weight.shape[0]))
        for start in range(0, h.shape[0], rows):
            part = slice(start, start + rows)
            logits = wide(h[part] @ weight.mT)
            if cap is not None:
                logits = cap * torch.tanh(logits / cap)
            target = targets[part].clamp(min=0)[:, None]
            grad = logits.log_softmax(-1)
            total -= (grad.gather(1, target).squeeze(1) * valid[part]).sum()
            if grad_h is None and grad_weight is None:
                continue
            # d(mean nll)/d(logits) = (softmax - onehot) / count, and the count is divided out of
            # the narrow factors below, which saves a pass over the vocabulary.
            grad.exp_().scatter_add_(1, target, grad.new_full((), -1.0).expand(target.shape))
            if cap is not None:
                grad.mul_(1 - (logits / cap).square_())
            grad = grad.to(h.dtype)
            scale = (valid[part, None] / count).to(h.dtype)
            if grad_h is not None:
                torch.mm(grad, weight, out=grad_h[part]).mul_(scale)
            if grad_weight is not None:
                scaled = h[part] * scale
                if grad_weight.dtype == weight.dtype:
                    grad_weight.addmm_(grad.mT, scaled)
                else:
                    grad_weight += grad.mT @ scaled
        ctx.save_for_backward(
            *(g if g is not None else torch.empty(0) for g in (grad_h, grad_weight))
        )
        ctx.weight_dtype = weight.dtype
        return total / count

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_h, grad_weight = ctx.saved_tensors
        need_h, need_weight = ctx.needs_input_grad[:2]
        return (
            (grad_h * grad.to(grad_h.dtype)) if need_h else None,
            (grad_weight * grad).to(ctx.weight_dtype) if need_weight else None,
            None,
            None,
            None,
        )
