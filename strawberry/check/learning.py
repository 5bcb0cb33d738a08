"""A check that a model learns to output, at the end, the first token of its sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from strawberry.check.outcome import Finding
from strawberry.check.subject import SEED, Subject
from strawberry.model.risks import declares

STEPS = 300
BATCH = 32
LENGTH = 8
VALUES = 8
LEARNED = 0.25
"""Fraction of the guessing loss below which the task counts as learned."""


def learns(subject: Subject) -> str:
    """Does a small model with it learn to copy the first token of a sequence to the end?"""
    torch.manual_seed(SEED)
    model = subject.model(training=True)
    generator = torch.Generator().manual_seed(SEED)
    # Whatever is checked, the rest is the same; a recipe's own learning rate may be for long runs.
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    guess, recent = math.log(VALUES), math.inf
    for step in range(STEPS):
        idx, first = _sequences(subject, generator)
        logits = model(idx)[:, -1, :VALUES]
        loss = cross_entropy(logits, first)
        if not loss.isfinite():
            raise Finding(f"the loss is not finite at step {step}")
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.after_step()
        recent = float(loss) if recent == math.inf else 0.8 * recent + 0.2 * float(loss)
        if recent < LEARNED * guess:
            return f"learned in {step + 1} steps"
    note = "" if declares(model, "causal") else " (it declares itself non-causal)"
    raise Finding(f"after {STEPS} steps its loss is {recent:.2f}; guessing gives {guess:.2f}{note}")


def _sequences(subject: Subject, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, T) ids that begin with one of the values, then other ids, and the (B,) values."""
    high = subject.recipe.model.vocab_size
    length = min(LENGTH, subject.recipe.model.block_size)
    idx = torch.randint(VALUES, high, (BATCH, length), generator=generator)
    idx[:, 0] = torch.randint(VALUES, (BATCH,), generator=generator)
    idx[:, -1] = high - 1
    return idx, idx[:, 0]
