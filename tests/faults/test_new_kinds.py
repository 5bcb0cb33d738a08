"""A stop and a resume, of every kind that a run changes with its steps or that keeps something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from strawberry.plugin.kinds import Kinds
from strawberry.training import train
from tests.faults.conftest import Figure
from tests.faults.test_resume import interrupted
from tests.support import REGISTRY
from tests.training.conftest import STACK, RecipeMaker
from tests.training.test_loop import rows, same_weights

KINDS = ("averaging", "block", "curriculum", "embedding", "loop", "measure", "objective",
         "parametrization", "residual")  # fmt: skip
NEEDS: dict[str, dict[str, Any]] = {
    "masked_diffusion": {"model": {"positional": "none"}},
    "per_layer": {"model": {"embedding": "per_layer"}},
}
"""What a component wants beside it."""


def sections(kind: str, name: str) -> dict[str, Any]:
    """A recipe's sections with this component at its place."""
    row = Kinds()[kind]
    block = {"attention": {"use": "mha", "n_head": 2, "causal": name != "masked_diffusion"},
             "ffn": "swiglu"}  # fmt: skip
    recur: dict[str, Any] = {"recur": 2, "stack": [block]}
    stack = [block, recur, block]
    given = NEEDS.get(name, {}) if kind != "embedding" else {}
    made: dict[str, Any] = {"model": {"stack": stack, **given.get("model", {})}}
    if "model" in row.places:
        made["model"][row.key] = {"use": name}
    elif "recur" in row.places:
        recur[row.key] = {"use": name}
    else:
        made[row.key] = [{"use": name}] if row.many == "list" else {"use": name}
    return made


def resumes(recipe: Any, folder: Path) -> bool:
    """Whether a run that was stopped after 3 steps ends as one that never was."""
    train(recipe, folder / "whole")
    interrupted(recipe, folder / "stopped", 3)
    torch.manual_seed(3)
    train(recipe, folder / "stopped", resume=True)
    same = rows(folder / "stopped") == rows(folder / "whole")
    return same and same_weights(folder / "stopped", folder / "whole")


@pytest.mark.faults(1)
def test_all_kinds_at_once_resume_exactly(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A loop that draws, averages, curricula, an objective with blocks, an embedding with state."""
    loop = {"recur": 2, "loop": "random_depth", "stack": STACK}
    recipe = make_recipe(
        model={"stack": [*STACK, loop, *STACK], "embedding": "smear", "block": "parallel",
               "parametrization": "complete_p"},
        objective="multi_token", averaging=["ema", "latest"], measures=["top_k"],
        curriculum=["batch_warmup", {"use": "growing_depth", "start": 2}],
        train={"max_iters": 5, "eval_interval": 2, "eval_iters": 1},
    )  # fmt: skip
    assert resumes(recipe, tmp_path)


@pytest.mark.slow
@pytest.mark.faults(1)
@pytest.mark.parametrize("kind", KINDS)
def test_every_component_of_a_kind_resumes_exactly(
    make_recipe: RecipeMaker, tmp_path: Path, kind: str, figure: Figure
) -> None:
    """Each built-in one by itself, but for distillation, whose teacher is another run."""
    entries = [e for e in REGISTRY.entries(kind) if e.plugin == "strawberry"]
    names = [entry.name for entry in entries if entry.name != "distillation"]
    assert names
    short = {"max_iters": 5, "eval_interval": 2, "eval_iters": 1}
    same = 0
    for name in names:
        recipe = make_recipe(**sections(kind, name), train=short)
        same += resumes(recipe, tmp_path / name)
    assert same == len(names)
    figure(len(names), same, f"{kind} to the bit")
