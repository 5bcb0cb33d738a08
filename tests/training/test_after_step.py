from pathlib import Path

import pytest
import torch

from strawberry.runs import checkpoint
from strawberry.training import train
from tests.training.conftest import RecipeMaker

MOE = {"use": "moe", "experts": 4, "gate": "sigmoid", "bias_rate": 0.01}
STACK = [{"recur": 2, "attention": {"use": "mha", "n_head": 2}, "ffn": MOE}]
BIAS = "stack.nodes.0.nodes.0.ffn.router.bias"


def bias_after(folder: Path) -> torch.Tensor:
    return checkpoint.load_newest(folder / "checkpoints")[0].model[BIAS]


@pytest.mark.parametrize("stop", [1, 3])
def test_each_step_calls_it_once(make_recipe: RecipeMaker, tmp_path: Path, stop: int) -> None:
    """A bias that moves after each step: by one rate a step, and the same after a resumption."""

    def run(folder: str, steps: int, *, resume: bool = False) -> torch.Tensor:
        recipe = make_recipe(
            model={"stack": STACK},
            train={"max_iters": steps, "gradient_accumulation_steps": 2, "lr_decay_iters": 6},
        )
        train(recipe, tmp_path / folder, resume=resume)
        return bias_after(tmp_path / folder)

    whole = run("whole", 6)
    part = run("part", stop)

    assert 0 < float(part.abs().max()) <= 2 * 0.01 * stop
    assert torch.equal(run("part", 6, resume=True), whole)
