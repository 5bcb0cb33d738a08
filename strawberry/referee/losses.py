"""Compare a loss with the distribution that a model predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
def logged_breach(
    logged: Callable[[Tensor, Tensor], Tensor],
    logits: Callable[[Tensor], Tensor],
    ids: Tensor,
    dtype: torch.dtype,
) -> Breach | None:
    """Compare the loss that an objective logs with the logits.

    Args:
        logged: ids and targets (B, T) -> the loss that is logged, in nats a target.
        logits: ids (B, T) -> logits (B, T, V).
        ids: of the sequences, which are their own targets.
        dtype: that of the pass.
    """
    predicted = outputs(logits, ids)
    nats = float(outputs(lambda x: logged(x, ids), ids)) * ids.numel()
    breach = loss_breach(predicted, ids, nats, dtype)
    return breach and replace(breach, detail=f"what is logged as the loss: {breach.detail}")


@torch.no_grad()
def bound_breach(
    predict: Callable[[Tensor, Tensor], Sequence[Prediction]],
    ids: Tensor,
    vocab_size: int,
    dtype: torch.dtype,
    *,
    causal: bool,
) -> Breach | None:
    """Check an objective with its own evaluation scores: whether it knows its targets.

    For each of its predictions the targets that it scores are replaced by others, in the inputs
    too, and its states must stay what they are; so must weights. Those of a row must come to the
    number of its targets.

    Args:
        predict: ids and targets (B, T) -> the objective's predictions, with the same noise at
            every call.
        ids: of the sequences. A target is the next id.
        vocab_size: what others are drawn from.
        dtype: that of the pass.
        causal: whether the model sees no later ids. Then the states before a replaced target are
            looked at; else all, of which none may see a target that is scored beside its own.
    """
    generator = torch.Generator().manual_seed(SEED)
    last = torch.randint(vocab_size, (len(ids), 1), generator=generator).to(ids.device)
    text = torch.cat((ids, last), 1)

    def predicted(text: Tensor) -> Sequence[Prediction]:
        with same_draws(ids.device):
            return predict(text[:, :-1], text[:, 1:])

    first, length = predicted(text), ids.shape[1]
    weights = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    for number, before in enumerate(first):
        scored = before.targets >= 0
        own = torch.ones_like(before.hidden[..., 0]) if before.weights is None else before.weights
        weights += own.where(scored, 0).sum(1).double()
        for cut in (0, length // 2, length - 1) if causal else (0,):
            other = text.clone()
            later = torch.arange(length, device=ids.device) >= cut
            other[:, 1:] = torch.where(scored & later, (text[:, 1:] + 1) % vocab_size, text[:, 1:])
            after = predicted(other)[number]
            seen = slice(0, cut + 1) if causal else slice(None)
            scale = before.hidden.abs().amax().clamp(min=1e-30)
            moved = (after.hidden - before.hidden)[:, seen].abs().amax()
            if not (size := float(moved / scale)) <= ROUNDING * NOISE[dtype]:
                return Breach("loss", size, "states change with the targets that they predict")
            if before.weights is not None and after.weights is not None:
                size = float((after.weights - before.weights).abs().amax() / own.abs().amax())
                if not size <= ROUNDING * NOISE[torch.float32]:
                    return Breach("loss", size, "weights change with the targets that they weigh")
    missing = float((weights / length - 1).abs().amax())
    if not missing <= ROUNDING * NOISE[torch.float32]:
        detail = f"the weights of a row's targets sum to {float(weights[0]):.6g}"
        return Breach("loss", missing, f"{detail}, of {length} targets")
    return None
