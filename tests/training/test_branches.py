"""Runs that branch from the stable part of a longer one."""

from pathlib import Path

import pytest
import torch

from strawberry.errors import StrawberryError
from strawberry.generation import load_run
from strawberry.ladder.cooldowns import shared_steps
from strawberry.runs.folder import RunFolder
from strawberry.training import train
from tests.runs.test_checkpoint import steps
from tests.training.conftest import RecipeMaker

LONG = {
    "max_iters": 12, "warmup_iters": 2, "cooldown_frac": 0.5, "lr_decay_iters": None, "min_lr": 0.0,
    "eval_interval": 0, "checkpoint_interval": 5, "keep_checkpoints": 1, "checkpoint_steps": [3, 4],
}  # fmt: skip
SHORT = {**LONG, "max_iters": 8, "checkpoint_steps": []}


def test_a_branch_is_the_run_from_scratch(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Weights, rates and losses are equal bit for bit; named checkpoints outlive the newest."""
    recipes = [make_recipe(schedule="wsd", train=settings) for settings in (LONG, SHORT)]
    shared = shared_steps(*recipes)
    assert shared == 5
    train(recipes[0], tmp_path / "long")
    kept = steps(tmp_path / "long" / "checkpoints")
    assert kept == ["step-00000003", "step-00000004", "step-00000012"]
    whole = train(recipes[1], tmp_path / "whole")
    branch = train(recipes[1], tmp_path / "branch", fork_of=tmp_path / "long", fork_step=4)
    assert branch.metrics == whole.metrics
    one, other = (load_run(tmp_path / name).model.state_dict() for name in ("whole", "branch"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert RunFolder(tmp_path / "branch").info()["fork"]["step"] == 4
    with pytest.raises(StrawberryError, match="no checkpoint after step 7; steps: 3, 4, 12"):
        train(recipes[1], tmp_path / "none", fork_of=tmp_path / "long", fork_step=7)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [("cosine", "shares only"), ("inverse_sqrt", "doesn't cool down"), ("constant", "cool down")],
)
def test_a_schedule_without_a_stable_part(
    make_recipe: RecipeMaker, schedule: str, message: str
) -> None:
    """It is refused by name: its rate depends on the run's length, or never falls to an end."""
    long, short = (make_recipe(schedule=schedule, train=settings) for settings in (LONG, SHORT))
    with pytest.raises(StrawberryError, match=message):
        shared_steps(long, short)
