"""Runs with objectives other than the next token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import strawberry
from strawberry.errors import RecipeError, StrawberryError
from strawberry.generation.load import load_run, load_teachers
from strawberry.training import train
from tests.training.conftest import RecipeMaker

BOTH = {"attention": {"use": "mha", "n_head": 2, "causal": False}, "ffn": "swiglu"}


def test_distillation(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The cross-entropy, and t^2 times the divergence from a run's model, token by token."""
    teacher = make_recipe(train={"max_iters": 2, "eval_interval": 0})
    train(teacher, tmp_path / "teacher")
    objective = {"use": "distillation", "run": str(tmp_path / "teacher"), "temperature": 2.0}
    recipe = make_recipe(objective=objective, model={"n_embd": 16, "dropout": 0.0})
    model = strawberry.build(recipe).train()
    load_teachers(model, recipe)
    taught = load_run(tmp_path / "teacher").model
    torch.manual_seed(0)
    ids, targets = torch.randint(60, (2, 2, 8)).unbind()
    student, theirs = model(ids).double(), taught(ids).double()
    total = torch.zeros((), dtype=torch.float64)
    for b, t in (targets >= 0).nonzero().tolist():
        p = F.softmax(theirs[b, t] / 2, -1)
        q = F.log_softmax(student[b, t] / 2, -1)
        total = total + 0.5 * F.cross_entropy(student[b, t], targets[b, t])
        total = total + 0.5 * 4 * (p * (p.log() - q)).sum()
    expected = total / int((targets >= 0).sum())
    loss = model.loss(ids, targets)
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=1e-6)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(loss.total, parameters)
    theirs = torch.autograd.grad(expected, parameters)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert not any("teacher" in name for name in model.state_dict())
    other = make_recipe(objective=objective, model={"vocab_size": 300})
    with pytest.raises(RecipeError, match="knows 257 ids, and this model 300"):
        load_teachers(strawberry.build(other), other)


def test_diffusion_trains_and_does_not_generate(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The referee looks at a run of it and finds nothing; `generate` says why it can't."""
    recipe = make_recipe(
        model={"dropout": 0.0, "stack": [BOTH]}, objective="masked_diffusion",
        train={"max_iters": 2, "eval_interval": 0},
    )  # fmt: skip
    result = train(recipe, tmp_path / "run")
    assert result.breaches == ()
    assert 0 < result.metrics["val_loss"] < 10
    with pytest.raises(StrawberryError, match="masked_diffusion doesn't predict the token that"):
        strawberry.generate(tmp_path / "run")
