"""Compare a loss with the distribution that a model predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from strawberry.contracts import Prediction
from strawberry.referee.dependence import NOISE, SEED, Breach, outputs, same_draws

ROUNDING: Final = 10.0
"""How much more rounding is allowed for trained weights, and in sums, than for new outputs."""


@torch.no_grad()
def targets_breach(
    measure: Callable[[Tensor, Tensor], Tensor],
    logits: Callable[[Tensor], Tensor],
    ids: Tensor,
    vocab_size: int,
    dtype: torch.dtype,
) -> Breach | None:
    """Compare losses with the logits that a model gives before its targets are known.

    Args:
        measure: ids and targets (B, T) -> the model's own sum of their losses, in nats.
        logits: ids (B, T) -> logits (B, T, V).
        ids: of the sequences; their targets are drawn, so that nothing foretells them.
        vocab_size: what they are drawn from.
        dtype: that of the pass.
    """
    predicted = outputs(logits, ids)
    generator = torch.Generator().manual_seed(SEED)
    targets = torch.randint(vocab_size, ids.shape, generator=generator).to(ids.device)
    nats = outputs(lambda x: measure(x, targets), ids)
    return loss_breach(predicted, targets, float(nats), dtype)


@torch.no_grad()
def loss_breach(logits: Tensor, targets: Tensor, nats: float, dtype: torch.dtype) -> Breach | None:
    """Compare a sum of losses with the distribution softmax(logits).

    Args:
        logits: (B, T, V).
        targets: (B, T); negative ones don't count.
        nats: the model's own sum of the losses of these targets.
        dtype: that of the pass.
    """
    counted = targets >= 0
    wide = logits[counted].double()
    own = wide.logsumexp(-1) - wide.gather(-1, targets[counted][:, None])[:, 0]
    expected = float(own.sum())
    size = abs(nats - expected) / max(abs(expected), 1e-30)
    if math.isfinite(size) and size <= ROUNDING * NOISE[dtype]:
        return None
    detail = f"the loss is {nats:.6g} nats, but the logits give {expected:.6g}"
    return Breach("loss", size, detail)


@torch.no_grad()
def bound_breach(
    predict: Callable[[Tensor, Tensor], Sequence[Prediction]],
    ids: Tensor,
    vocab_size: int,
    dtype: torch.dtype,
) -> Breach | None:
    """Check an objective with its own evaluation scores: whether it knows its targets.

    For each of its predictions the targets that it scores are replaced by others, and its states
    must stay what they are. The weights of a row must come to the number of its targets.

    Args:
        predict: ids and targets (B, T) -> the objective's predictions, with the same noise at
            every call.
        ids: of the sequences; their targets are drawn.
        vocab_size: what they are drawn from.
        dtype: that of the pass.
    """
    generator = torch.Generator().manual_seed(SEED)
    targets = torch.randint(vocab_size, ids.shape, generator=generator).to(ids.device)

    def predicted(targets: Tensor) -> Sequence[Prediction]:
        with same_draws(ids.device):
            return predict(ids, targets)

    first = predicted(targets)
    weights = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    for number, before in enumerate(first):
        scored = before.targets >= 0
        own = torch.ones_like(before.hidden[..., 0]) if before.weights is None else before.weights
        weights += own.where(scored, 0).sum(1).double()
        others = torch.where(scored, (targets + 1) % vocab_size, targets)
        after = predicted(others)[number]
        scale = before.hidden.abs().amax().clamp(min=1e-30)
        size = float((after.hidden - before.hidden).abs().amax() / scale)
        if not size <= ROUNDING * NOISE[dtype]:
            return Breach("loss", size, "states change with the targets that they predict")
    missing = float((weights / ids.shape[1] - 1).abs().amax())
    if not missing <= ROUNDING * NOISE[torch.float32]:
        detail = f"the weights of a row's targets sum to {float(weights[0]):.6g}"
        return Breach("loss", missing, f"{detail}, of {ids.shape[1]} targets")
    return None
