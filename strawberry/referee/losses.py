"""Whether a loss is that of the distribution which a model predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from strawberry.referee.dependence import NOISE, SEED, Breach, outputs

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
    """Whether losses are those of the logits that a model gives before anybody knows its targets.

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
    """Whether a sum of losses is that of the distribution softmax(logits).

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
