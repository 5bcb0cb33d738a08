"""torch's compiler is imported where something is compiled, and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import _use_grad_for_differentiable

from strawberry.training.uncompiled import spare_compiler

ROOT = Path(__file__).parents[2]

STEPS = """
import sys, torch
from strawberry.model.build import build
from strawberry.recipe import load_recipe
from strawberry.training.optimizers import Optimizers
from strawberry.training.uncompiled import spare_compiler
spare_compiler()
for name in sys.argv[1:]:
    recipe = load_recipe(f"recipes/{name}.yaml")
    torch.manual_seed(0)
    model = build(recipe, "cpu").train()
    optimizers = Optimizers(recipe, model.parameter_infos(), torch.device("cpu"))
    tokens = torch.randint(0, recipe.model.vocab_size, (2, 40))
    for step in range(2):
        model.loss(tokens, tokens).total.backward()
        optimizers.step(step)
        optimizers.zero_grad()
    print(sum(p.double().abs().sum() for p in model.parameters()).item())
"""
UNCOMPILED = 'assert "torch._dynamo" not in sys.modules'


def run(code: str, *names: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_training_steps_without_the_compiler_and_as_with_it() -> None:
    """Steps of models with operators of ours give the same parameters to the bit."""
    names = ("original_air", "moe", "muon")
    assert run(STEPS + UNCOMPILED, *names) == run(f"import torch._dynamo\n{STEPS}", *names)


@pytest.mark.parametrize("differentiable", [False, True])
def test_a_step_switches_gradients_as_torch_does(
    differentiable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off, but for optimizers that are differentiable; and back to what it was."""

    class Plain(torch.optim.SGD):
        @_use_grad_for_differentiable
        def step(self) -> bool:  # type: ignore[override]
            return torch.is_grad_enabled()

    spare_compiler([Plain])
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    optimizer = Plain([torch.zeros(1, requires_grad=True)], differentiable=differentiable)
    assert optimizer.step() is differentiable  # type: ignore[comparison-overlap]
    assert "torch._dynamo" not in sys.modules
    assert torch.is_grad_enabled()
