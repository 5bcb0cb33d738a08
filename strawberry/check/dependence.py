"""What an output depends on: no later token, no other sequence, but itself and its past."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from strawberry.check.outcome import Finding
from strawberry.check.subject import Subject
from strawberry.model.language_model import LanguageModel
from strawberry.model.risks import declares

NOISE = 1e-5
"""What may change by rounding, relative to the largest value."""
LARGE = 30.0
"""Activations scaled so show numerical leaks, such as of sums over all tokens that cancel."""


def future(subject: Subject) -> str:
    """Does any output depend on a later token?"""
    worst, where, declared = 0.0, "", True
    for training in (True, False):
        model = subject.model(training=training)
        declared &= declares(model, "causal")
        mode = "training" if training else "evaluation"
        for name, part in subject.parts(model):
            x, run = subject.call(model, part)
            for scale in (1.0, LARGE):
                influence = _influence(run, x * scale)
                leak, text = _largest(influence.triu(1))
                if leak > worst:
                    worst, where = leak, f"{name} in {mode}, inputs x{scale:g}: {text}"
        influence = _on_logits(model, subject.tokens())
        leak, text = _largest(influence.triu(1))
        if leak > worst:
            worst, where = leak, f"the logits in {mode}: {text}"
    if not declared:
        if worst <= NOISE:
            raise Finding("it declares `causal = False`, and nothing depends on a later token")
        return f"declared: {worst:.2g} of the largest output"
    if worst > NOISE:
        raise Finding(
            f"{where}, by {worst:.2g} of the largest output, and it declares itself causal"
        )
    return f"at most {worst:.1g} of the largest output"


def past(subject: Subject) -> str:
    """Does each token reach itself, and the past reach the present?"""
    model = subject.model()
    hidden = []
    for name, part in subject.parts(model):
        x, run = subject.call(model, part)
        influence = _influence(run, x)
        diagonal = influence.diagonal()
        blind = (diagonal <= NOISE).nonzero().flatten().tolist()
        if blind:
            places = ", ".join(map(str, blind))
            hidden.append(f"{name}: a token does not reach its own output, at {places}")
        mixes = subject.kind == "attention" or "attention" in name.rpartition(".")[2]
        if mixes and not (influence.tril(-1) > NOISE).any():
            hidden.append(f"{name}: no earlier token reaches a later output")
    if hidden:
        raise Finding("; ".join(hidden))
    influence = _on_logits(model, subject.tokens())
    if not (influence.tril(-1) > NOISE).any():
        raise Finding("no earlier token reaches a later logit")
    return "every token reaches itself, and later ones"


def batch(subject: Subject) -> str:
    """Does any output depend on another sequence of the batch?"""
    found = []
    for training in (True, False):
        model = subject.model(training=training)
        mode = "training" if training else "evaluation"
        idx = subject.tokens()
        others = torch.cat([idx[:1], (idx[1:] + 1) % subject.recipe.model.vocab_size])
        with torch.no_grad():
            whole, changed, alone = model(idx)[0], model(others)[0], model(idx[:1])[0]
        moved = torch.stack([changed - whole, alone - whole]).abs().amax(-1)
        leak = float(moved.max() / whole.abs().max())
        if declares(model, "batch_independent"):
            if leak > NOISE:
                token = int(moved.amax(0).argmax())
                raise Finding(
                    f"in {mode}, other sequences move the logits at token {token} by {leak:.2g} of "
                    "the largest, and it declares itself batch-independent"
                )
        elif leak <= NOISE:
            raise Finding(f"it declares `batch_independent = False`, and in {mode} it is")
        found.append(f"{mode} {leak:.1g}")
    return ", ".join(found) + " of the largest logit"


def _influence(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(T, T): how far a change of the input at column j moves the output at row i, relatively."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        before = run(x)
        size = before.abs().max().clamp(min=1e-30)
        columns = []
        for j in range(x.shape[1]):
            changed = x.clone()
            noise = torch.randn(x.shape[0], x.shape[2], generator=generator)
            changed[:, j] = noise.to(x) * x.abs().max() / 2
            columns.append((run(changed) - before).abs().amax((0, 2)) / size)
    return torch.stack(columns, dim=1)


def _on_logits(model: LanguageModel, idx: Tensor) -> Tensor:
    """(T, T): how far another token at column j moves the logits at row i, relatively."""
    vocabulary = model.embedding.num_embeddings
    with torch.no_grad():
        before = model(idx)
        columns = []
        for j in range(idx.shape[1]):
            changed = idx.clone()
            changed[:, j] = (changed[:, j] + 1) % vocabulary
            columns.append((model(changed) - before).abs().amax((0, 2)) / before.abs().max())
    return torch.stack(columns, dim=1)


def _largest(influence: Tensor) -> tuple[float, str]:
    """The largest entry, and what it says."""
    place = int(influence.argmax())
    row, column = divmod(place, influence.shape[1])
    return float(influence[row, column]), f"token {column} changes the output at {row}"
