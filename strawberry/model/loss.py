"""Cross-entropy of a linear head, without storing the logits of all tokens.

N tokens, width C, vocabulary V. The plain form stores (N, V) logits and their gradient. Here tokens
pass through the head in chunks, and a chunk's gradient is computed with its loss, so memory holds
one chunk of logits. The arithmetic is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import HeadLoss, wide, without_autocast

CHUNK_BYTES = {"cpu": 8 << 20}
"""Size of a chunk's float32 logits: on a CPU the size of its caches, elsewhere 512 MiB."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Terms of a training loss besides the cross-entropy.

    Attributes:
        z_loss: weight of the mean squared logsumexp of the logits, which prevents their drift
            (Chowdhery et al. 2022, arXiv 2204.02311, section 5).
        label_smoothing: probability of a target that is spread evenly over the vocabulary (Szegedy
            et al. 2015, arXiv 1512.00567, section 7).
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0


def head_logits(h: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    """`h W^T`, bounded to +-softcap by `softcap * tanh(. / softcap)` if given."""
    logits = F.linear(h, weight)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def linear_cross_entropy(
    h: Tensor, weight: Tensor, targets: Tensor, softcap: float | None = None
) -> Tensor:
    """Mean cross-entropy over the targets that are not ignored, in nats; see `head_loss`."""
    return head_loss(h, weight, targets, softcap).total


def head_loss(
    h: Tensor,
    weight: Tensor,
    targets: Tensor,
    softcap: float | None = None,
    terms: LossTerms | None = None,
    count: Tensor | None = None,
    weights: Tensor | None = None,
) -> HeadLoss:
    """The loss of a linear head.

    Args:
        h: (N, C) hidden states.
        weight: (V, C) head.
        targets: (N,) int64 token ids; negative ones are ignored.
        softcap: bound on the logits, or None.
        terms: further terms of the training loss.
        count: divisor of sums over targets; None counts those that are not ignored.
        weights: (N,) what each target's part is multiplied by; None for 1.
    """
    dtype, training = _computed_in(h), torch.is_grad_enabled()
    return HeadLoss(
        *_ChunkedLoss.apply(  # type: ignore[no-untyped-call]
            h, weight, targets, softcap, terms or LossTerms(), training, count, weights, dtype
        )
    )


def _computed_in(h: Tensor) -> torch.dtype:
    """The dtype of products: autocast's where it is on."""
    kind = h.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return h.dtype


class _ChunkedLoss(torch.autograd.Function):
    """The loss of states h (N, C), a head's weight (V, C) and targets (N,), for N tokens.

    For each token it is `(1 - e) nll + e mean_v(nll_v) + b lse^2`, with smoothing e and z-weight b.

    Its gradient by the logits is `(1 + 2 b lse) softmax - (1 - e) onehot - e / V`. Products are in
    `dtype`; sums over tokens are wider, and keep that precision up to the parameter.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        targets: Tensor,
        cap: float | None,
        terms: LossTerms,
        training: bool,
        count: Tensor | None,
        weights: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dtypes = h.dtype, weight.dtype
        h, weight, valid = h.to(dtype), weight.to(dtype), targets >= 0
        count = valid.sum().clamp(min=1) if count is None else count
        counted = valid if weights is None else wide(weights.where(valid, 0))
        need_h, need_weight = (training and need for need in ctx.needs_input_grad[:2])
        grad_h = torch.empty_like(h) if need_h else None
        accumulate = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=accumulate) if need_weight else None
        sums = wide(h.new_zeros(3))  # nll, lse^2, mean_v(nll_v)
        smooth, z = terms.label_smoothing, terms.z_loss
        vocabulary = weight.shape[0]
        rows = max(16, CHUNK_BYTES.get(h.device.type, 512 << 20) // (4 * vocabulary))
        # Every chunk is written where the last one was: memory that is in the caches, and mapped.
        room, wide_room = _rooms(h, min(rows, h.shape[0]), vocabulary)
        for start in range(0, h.shape[0], rows):
            part = slice(start, start + rows)
            product = torch.mm(h[part], weight.mT, out=room[: len(h[part])])
            logits = _into(wide_room[: len(product)], product)
            slope = _capped_(logits, cap, training)
            target = targets[part].clamp(min=0)[:, None]
            right = logits.gather(1, target)
            mean = logits.mean(-1, keepdim=True) if smooth else 0.0
            grad, total, lse = _exponentials_(logits)
            each = torch.cat((lse - right, lse.square(), lse - mean), dim=1)
            sums += (each * counted[part, None]).sum(0)
            if grad_h is None and grad_weight is None:
                continue
            # `total` and the count are divided out of the narrow factors below, which saves a pass
            # over the vocabulary.
            if z:
                grad.mul_(1 + 2 * z * lse)
            if smooth:
                grad.sub_(total * (smooth / vocabulary))
            grad.scatter_add_(1, target, total * (smooth - 1.0))
            if slope is not None:
                grad.mul_(slope)
            grad = _into(product, grad)
            scale = counted[part, None] / (count * total)
            if grad_h is not None:
                torch.mm(grad, weight, out=grad_h[part]).mul_(scale)
            if grad_weight is not None:
                scaled = (h[part] * scale).to(h.dtype)
                if grad_weight.dtype == weight.dtype:
                    grad_weight.addmm_(grad.mT, scaled)
                else:
                    grad_weight += grad.mT @ scaled
        ctx.save_for_backward(
            *(g if g is not None else torch.empty(0) for g in (grad_h, grad_weight))
        )
        nll, squared, spread_nll = (part.clone() for part in (sums / count).unbind())
        total = nll.clone()
        if smooth:
            total = (1 - smooth) * total + smooth * spread_nll
        if z:
            total = total + z * squared
        ctx.mark_non_differentiable(nll, squared)
        return total, nll, squared

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        grad_h, grad_weight = ctx.saved_tensors
        need_h, need_weight = ctx.needs_input_grad[:2]
        h_dtype, weight_dtype = ctx.dtypes
        return (
            (grad_h.to(h_dtype) * grad.to(h_dtype)) if need_h else None,
            (grad_weight * grad).to(weight_dtype) if need_weight else None,
            *(None,) * 7,
        )


def _rooms(h: Tensor, rows: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Buffers for products (rows, V) in the dtype and in float32; one buffer for float32."""
    room = h.new_empty(rows, vocabulary)
    dtype = torch.promote_types(h.dtype, torch.float32)
    return room, room if room.dtype == dtype else torch.empty_like(room, dtype=dtype)


def _into(room: Tensor, x: Tensor) -> Tensor:
    """`x` in the dtype of `room`, written to that buffer unless it has the dtype already."""
    return x if x.dtype == room.dtype else room.copy_(x)


def _capped_(logits: Tensor, cap: float | None, training: bool) -> Tensor | None:
    """Bound logits in place; in training returns the derivative by the unbounded ones."""
    if cap is None:
        return None
    bounded = logits.div_(cap).tanh_()
    slope = 1 - bounded.square() if training else None
    bounded.mul_(cap)
    return slope


def _exponentials_(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Multiples of a softmax (N, V), their factors (N, 1), and logsumexp (N, 1).

    On a CPU the first overwrite the logits.
    """
    top = logits.amax(-1, keepdim=True)
    if logits.is_cpu:  # in the caches, these passes are faster than the fused kernel
        powers = logits.sub_(top).exp_()
        total = powers.sum(-1, keepdim=True)
        return powers, total, top + total.log()
    shares = logits.softmax(-1)
    return shares, torch.ones_like(top), top - shares.amax(-1, keepdim=True).log()


def loss_over_logits(
    h: Tensor,
    weight: Tensor,
    each: Callable[..., Tensor],
    others: Sequence[Tensor],
    softcap: float | None = None,
) -> Tensor:
    """The sum of any loss of logits, of which one chunk is held at a time.

    Args:
        h: (N, C) hidden states.
        weight: (V, C) head.
        each: of logits (n, V) and the rows of the `others`, the loss of each token (n,).
        others: (N, ...); the first is bool, and says which tokens count.
        softcap: bound on the logits, or None.
    """
    dtype = _computed_in(h)
    training = torch.is_grad_enabled()
    return _ChunkedSum.apply(h, weight, softcap, each, training, dtype, *others)  # type: ignore[no-untyped-call]


class _ChunkedSum(torch.autograd.Function):
    """The sum of a loss over chunks of states h (N, C), N tokens, under a weight (V, C).

    It takes the gradient of each chunk as soon as its loss is there, by autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        softcap: float | None,
        each: Callable[..., Tensor],
        training: bool,
        dtype: torch.dtype,
        counted: Tensor,
        *others: Tensor,
    ) -> Tensor:
        need = [training and need for need in ctx.needs_input_grad[:2]]
        ctx.dtypes = h.dtype, weight.dtype
        pairs = zip((h, weight), need, strict=True)
        grads = [wide(torch.zeros_like(x)) if needed else None for x, needed in pairs]
        sizes = max(16, CHUNK_BYTES.get(h.device.type, 512 << 20) // (4 * weight.shape[0]))
        total = wide(h.new_zeros(()))
        with without_autocast(h.device), torch.set_grad_enabled(any(need)):
            head = weight.detach().to(dtype).requires_grad_(need[1])
            for start in range(0, len(h), sizes):
                part = slice(start, start + sizes)
                states = h[part].detach().to(dtype).requires_grad_(need[0])
                logits = wide(head_logits(states, head, softcap))
                losses = each(logits, *(other[part] for other in others))
                loss = losses.where(counted[part], 0).sum()
                total = total + loss.detach()
                sources = [x for x, n in zip((states, head), need, strict=True) if n]
                slopes = iter(torch.autograd.grad(loss, sources) if sources else ())
                if grads[0] is not None:
                    grads[0][part] = next(slopes)
                if grads[1] is not None:
                    grads[1] += next(slopes)
        ctx.save_for_backward(*(g if g is not None else torch.empty(0) for g in grads))
        ctx.need, ctx.rest = need, 5 + len(others)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slopes = zip(ctx.saved_tensors, ctx.need, ctx.dtypes, strict=True)
        return (
            *((g * grad).to(dtype) if n else None for g, n, dtype in slopes),
            *(None,) * ctx.rest,
        )
