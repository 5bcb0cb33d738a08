"""Checks of dependence: no output depends on later tokens or other sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.model.language_model import LanguageModel
from strawberry.model.risks import declares
from strawberry.referee import Kind, audit
from strawberry.referee.audit import DECLARED
from strawberry.referee.dependence import outputs
from strawberry.referee.draws import draws

NOISE = 1e-5
"""Relative change that rounding can cause."""
LARGE = 30.0
"""Scale of activations that exposes numerical leaks, such as sums over all tokens that cancel."""


def future(subject: Subject) -> str:
    """Does any output depend on a later token?"""
    text = _audited(subject, "future", "a later token")
    _rounds(subject)
    return text


def batch(subject: Subject) -> str:
    """Does any output depend on another sequence of the batch?"""
    return _audited(subject, "batch", "another sequence")


def history(subject: Subject) -> str:
    """Does any output depend on an earlier batch, or on draws that torch doesn't seed?"""
    return _audited(subject, "history", "an earlier batch") + drawn(subject)


def drawn(subject: Subject) -> str:
    """Lines that draw random numbers; each measurement starts from the same random state."""
    text = ""
    for mode in ("training", "evaluation"):
        model = subject.model(training=mode == "training")
        places = draws(model, model.hidden, subject.tokens())
        if places:
            text += f"; random numbers in {mode}: {', '.join(places)}"
    return text


def _audited(subject: Subject, kind: Kind, what: str) -> str:
    """The referee's measurement, in every way in which the model runs."""
    model, lengths = subject.long()
    every = list(audit(model, lengths, kinds=[kind]))
    refusals = [measured.refusal for measured in every if measured.refusal]
    seen = [measured for measured in every if not measured.refusal]
    if not seen:
        raise NotApplicable(refusals[0])
    declared = [m for m in seen if m.declared]
    for measured in seen:
        if measured.breach is not None and not measured.declared:
            attribute = DECLARED.get(measured.kind)
            claim = f", but it declares `{attribute} = True`" if attribute else ""
            raise Finding(f"{measured.breach}{claim}")
    if declared and not any(measured.breach for measured in declared):
        raise Finding(f"it declares `{DECLARED[kind]} = False`, but nothing depends on {what}")
    ways = len({measured.situation for measured in seen})
    text = f"{ways} ways to run it, with {', '.join(map(str, lengths))} tokens"
    if declared:
        sizes = [m.breach.size for m in declared if m.breach]
        text += f"; declared: {max(sizes):.2g} of the largest output"
    if refusals:
        text += f"; {len(refusals)} of {len(every)} passes refused: {refusals[0]}"
    return text


def _rounds(subject: Subject) -> None:
    """Raises Finding if large inputs make a component leak by rounding."""
    for training in (True, False):
        model = subject.awake(training=training)
        if not declares(model, "causal"):
            continue
        for name, part in subject.parts(model):
            x, run = subject.call(model, part)
            leak, text = _largest(_influence(run, x * LARGE).triu(1))
            repeats = torch.equal(outputs(run, x * LARGE), outputs(run, x * LARGE))
            if leak > NOISE and repeats:
                mode = "training" if training else "evaluation"
                raise Finding(
                    f"{name} in {mode}, inputs x{LARGE:g}: {text}, by {leak:.2g} of the largest "
                    "output, but it declares itself causal"
                )


def past(subject: Subject) -> str:
    """Does each token affect its own output, and do earlier tokens affect later outputs?"""
    model = subject.awake()
    hidden = []
    for name, part in subject.parts(model):
        x, run = subject.call(model, part)
        influence = _influence(run, x)
        diagonal = influence.diagonal()
        blind = (diagonal <= NOISE).nonzero().flatten().tolist()
        if blind:
            places = ", ".join(map(str, blind))
            hidden.append(f"{name}: a token does not affect its own output, at {places}")
        mixes = subject.kind == "attention" or "attention" in name.rpartition(".")[2]
        if mixes and not (influence.tril(-1) > NOISE).any():
            hidden.append(f"{name}: no earlier token affects a later output")
    if hidden:
        raise Finding("; ".join(hidden))
    influence = _on_logits(model, subject.tokens())
    if not (influence.tril(-1) > NOISE).any():
        raise Finding("no earlier token affects a later logit")
    return "every token affects its own output and later ones"


def _influence(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(T, T): relative change of the output at row i when the input at column j changes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        before = outputs(run, x)
        size = before.abs().max().clamp(min=1e-30)
        columns = []
        for j in range(x.shape[1]):
            changed = x.clone()
            noise = torch.randn(x.shape[0], x.shape[2], generator=generator)
            changed[:, j] = noise.to(x) * x.abs().max() / 2
            columns.append((outputs(run, changed) - before).abs().amax((0, 2)) / size)
    return torch.stack(columns, dim=1)


def _on_logits(model: LanguageModel, idx: Tensor) -> Tensor:
    """(T, T): relative change of the logits at row i when the token at column j changes."""
    vocabulary = model.vocab_size
    with torch.no_grad():
        before = model(idx)
        columns = []
        for j in range(idx.shape[1]):
            changed = idx.clone()
            changed[:, j] = (changed[:, j] + 1) % vocabulary
            columns.append((model(changed) - before).abs().amax((0, 2)) / before.abs().max())
    return torch.stack(columns, dim=1)


def _largest(influence: Tensor) -> tuple[float, str]:
    """The largest entry, with a description."""
    place = int(influence.argmax())
    row, column = divmod(place, influence.shape[1])
    return float(influence[row, column]), f"token {column} changes the output at {row}"
