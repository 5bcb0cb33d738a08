"""Checks of gradients: each parameter has one, it is correct, and it stays finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strawberry.check.outcome import Finding, NotApplicable
from strawberry.check.subject import Subject
from strawberry.model.language_model import LanguageModel
from strawberry.model.risks import declares

SCALE = 100.0
"""Scale of large inputs, in standard deviations."""


def reach(subject: Subject) -> str:
    """Does every parameter have a finite gradient?

    If a product starts at zero, one factor has a gradient only after the other has changed.
    """
    model = subject.model(training=True)
    _loss(model, subject).backward()  # type: ignore[no-untyped-call]
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() and parameter.grad is not None and parameter.grad.any():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.zero_grad()
    _loss(model, subject).backward()  # type: ignore[no-untyped-call]
    named = dict(model.named_parameters())
    dead = [name for name, p in named.items() if p.grad is None or not p.grad.any()]
    if dead:
        raise Finding("no gradient for " + ", ".join(dead))
    wild = [n for n, p in named.items() if p.grad is not None and not p.grad.isfinite().all()]
    if wild:
        raise Finding("non-finite gradients of " + ", ".join(wild))
    return f"{len(named)} parameters"


def gradcheck(subject: Subject) -> str:
    """In float64, is the gradient the slope of the loss along random directions?"""
    model = subject.model(dtype=torch.float64)
    if not declares(model, "exact_gradient"):
        raise NotApplicable("it declares that it stops or estimates a gradient")
    # Away from the start, where gates that begin at zero or ties would hide half of the formula.
    generator = torch.Generator().manual_seed(6)
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    gradient = torch.autograd.grad(_loss(model, subject), parameters, allow_unused=True)
    worst = 0.0
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator).double() for p in parameters]
        said = sum(
            float((g * d).sum()) for g, d in zip(gradient, direction, strict=True) if g is not None
        )
        step = 1e-6
        slope = (_moved(model, subject, parameters, direction, step)
                 - _moved(model, subject, parameters, direction, -step)) / (2 * step)  # fmt: skip
        error = abs(said - slope) / max(abs(said), abs(slope), 1e-9)
        worst = max(worst, error)
        if error > 1e-3:
            raise Finding(
                f"along a random direction the loss changes by {slope:.6g}, but its gradient "
                f"says {said:.6g}"
            )
    return f"relative error at most {worst:.1g}"


def stability(subject: Subject) -> str:
    """Do inputs a hundred times as large give finite outputs and gradients?"""
    model = subject.model(training=True)
    for name, part in subject.parts(model):
        x, run = subject.call(model, part)
        x = (SCALE * x).requires_grad_()
        y = run(x)
        if not y.isfinite().all():
            raise Finding(f"{name}: outputs are not finite")
        gradients = torch.autograd.grad(
            y.square().mean(), [x, *part.parameters()], allow_unused=True
        )
        if not all(g.isfinite().all() for g in gradients if g is not None):
            raise Finding(f"{name}: gradients are not finite")
    with torch.no_grad():
        for table in model.embedding.parameters():
            table.mul_(SCALE)
        if not model(subject.tokens()).isfinite().all():
            raise Finding("the logits are not finite")
    return "finite"


def _loss(model: LanguageModel, subject: Subject) -> Tensor:
    idx = subject.tokens()
    return model.loss(idx, (idx * 7 + 3) % subject.recipe.model.vocab_size).total


def _moved(
    model: LanguageModel,
    subject: Subject,
    parameters: list[nn.Parameter],
    direction: list[Tensor],
    step: float,
) -> float:
    """The loss one step along a direction; the parameters are restored."""
    kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter, d in zip(parameters, direction, strict=True):
            parameter.add_(d, alpha=step)
        value = float(_loss(model, subject))
        for parameter, old in zip(parameters, kept, strict=True):
            parameter.copy_(old)
    return value
