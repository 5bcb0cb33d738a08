"""A run's own model on its own validation rows, as it is about to be judged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from strawberry.model.risks import declares
from strawberry.referee.audit import DECLARED, is_its_own
from strawberry.referee.dependence import (
    NOISE,
    Breach,
    Limits,
    Run,
    again,
    compared,
    difference,
    later,
    others,
    outputs,
)
from strawberry.referee.places import first_difference

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

TRAINED: Final = 10.0
"""How much more rounding is allowed for trained weights than for new ones."""
ROUNDS: Final = 3
"""A breach has to show so often again, with other draws: rounding can move a token to another
expert once in a while."""


@torch.no_grad()
def judge(
    model: LanguageModel, run: Run, x: Tensor, *, seed: int, dtype: torch.dtype
) -> list[Breach]:
    """What the hidden states of a model in evaluation depend on, and must not.

    It takes five passes over these rows, and a few more where something shows.

    Args:
        model: the model, in evaluation.
        run: ids (B, T) -> hidden states (B, T, C), compiled and cast as in the run.
        x: validation rows, (B, T).
        seed: of the positions from which tokens are replaced, and of the tokens that come there.
        dtype: that of the pass.
    """
    noise = TRAINED * NOISE[dtype]
    first = outputs(run, x)
    breaches = []
    for limits in _all_limits(model, x, seed):
        last = outputs(run, limits.passes[-1])
        if difference(limits, first, last, noise) and is_its_own(run, limits, first, noise):
            breaches.append(limits.kind)
    return [
        breach
        for kind in dict.fromkeys(breaches)
        if (breach := _confirmed(model, run, x, kind, seed, noise))
    ]


def _all_limits(model: LanguageModel, x: Tensor, seed: int) -> list[Limits]:
    """What is compared with the first pass; `again` is last, when other rows have been seen."""
    vocab_size = model.embedding.num_embeddings
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(1, x.shape[1], (2, len(x)), generator=generator).tolist()
    every = [later(x, cuts, vocab_size, seed) for cuts in draws]
    if len(x) > 1:
        every.append(others(x, vocab_size, seed))
    every.append(again(x, vocab_size, seed))
    return [limits for limits in every if declares(model, DECLARED[limits.kind])]


def _confirmed(
    model: LanguageModel, run: Run, x: Tensor, kind: str, seed: int, noise: float
) -> Breach | None:
    """The breach, if it shows again with other draws; with its place."""
    shown = 0
    for number in range(1, 8 * ROUNDS):
        for limits in _all_limits(model, x, seed + number):
            if limits.kind != kind:
                continue
            breach = difference(limits, *compared(run, limits), noise)
            shown += breach is not None
            if breach is not None and shown == ROUNDS:
                return replace(breach, place=first_difference(model, run, limits))
    return None


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
    if math.isfinite(size) and size <= TRAINED * NOISE[dtype]:
        return None
    detail = f"the loss is {nats:.6g} nats where the logits say {expected:.6g}"
    return Breach("loss", size, detail)
