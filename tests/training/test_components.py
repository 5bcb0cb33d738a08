"""What every optimizer and every schedule must hold in a run, over the whole registry.

One that is registered later is tested here without anybody remembering it; an optimizer that needs
another learning rate than AdamW's gets a line in `FIELDS`.
"""

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strawberry.plugin import Plugins
from strawberry.recipe.spec import Recipe
from strawberry.runs import checkpoint
from strawberry.training import Interrupted, evaluate, train
from strawberry.training.optimizers import Optimizers
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import StopAt, rows, same_weights

REGISTRY = Plugins.load().registry
FIELDS: dict[str, dict[str, Any]] = {
    "adafactor": {"lr": 0.03},
    "lion": {"lr": 1e-3},
    "muon": {"lr": 0.02, "momentum_warmup": 5},
    "sgd": {"lr": 0.1},
}
ALONE: dict[str, dict[str, Any]] = {
    e.name: {"optimizer": {"use": e.name, **FIELDS.get(e.name, {})}}
    for e in REGISTRY.entries("optimizer")
}
MIXED: dict[str, Any] = {
    "optimizer": [
        {"use": "schedule_free_adamw", "params": "*.attention.*"},
        {"use": "adafactor", "params": "embedding", "lr": 0.03},
        {"use": "muon", "lr": 0.02, "rest": {"use": "lion", "lr": 1e-3}},
    ]
}
SCHEDULES: dict[str, dict[str, Any]] = {
    e.name: {"schedule": e.name} for e in REGISTRY.entries("schedule")
}
OPTIMIZERS = {**ALONE, "mixed": MIXED}
CASES = {**OPTIMIZERS, **SCHEDULES}
EVERY = pytest.mark.parametrize("sections", CASES.values(), ids=CASES)
QUICK = {"adafactor", "adamw", "muon", "mixed", "schedule_free_adamw"}
"""Optimizers with all states that there are; the others' longer runs are slow tests."""
MOST = pytest.mark.parametrize(
    "sections",
    [
        pytest.param(sections, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, sections in OPTIMIZERS.items()
    ],
)
OFTEN = {"gradient_accumulation_steps": 2, "log_interval": 3}


class Killed(Exception):  # noqa: N818
    """The process is gone, without having saved."""


def die_at(patch: pytest.MonkeyPatch, step: int) -> None:
    original = Optimizers.step

    def step_or_die(optimizers: Any, number: int) -> float:
        if number == step:
            raise Killed
        return original(optimizers, number)

    patch.setattr(Optimizers, "step", step_or_die)


def resume_elsewhere(recipe: Recipe, folder: Path) -> None:
    """Go on as another process would, whose generators are in other states."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    train(recipe, folder, resume=True)


@EVERY
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_stopped_and_resumed_equals_uninterrupted(
    make_recipe: RecipeMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sections: dict[str, Any],
    every: bool,
) -> None:
    """With dropout and two micro-batches a step, every number and weight is the same."""
    recipe = make_recipe(**sections, train=OFTEN)
    train(recipe, tmp_path / "whole")
    for k in (1, 4, 7) if every else (4,):
        folder = tmp_path / f"stopped-{k}"
        with monkeypatch.context() as patch:
            StopAt(k, patch)
            with pytest.raises(Interrupted):
                train(recipe, folder)
        resume_elsewhere(recipe, folder)
        assert rows(folder) == rows(tmp_path / "whole"), k
        assert same_weights(folder, tmp_path / "whole"), k


@MOST
def test_killed_and_resumed_equals_uninterrupted(
    make_recipe: RecipeMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sections: dict[str, Any],
) -> None:
    """Twice killed between checkpoints, once right after one, it ends the same."""
    recipe = make_recipe(**sections, train={**OFTEN, "checkpoint_interval": 2})
    train(recipe, tmp_path / "whole")
    for attempt, step in enumerate((3, 5, 6)):
        with monkeypatch.context() as patch:
            die_at(patch, step)
            with contextlib.suppress(Killed):
                train(recipe, tmp_path / "run", resume=attempt > 0)
    resume_elsewhere(recipe, tmp_path / "run")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")


@MOST
def test_looking_and_saving_change_nothing(
    make_recipe: RecipeMaker, tmp_path: Path, sections: dict[str, Any]
) -> None:
    """Evaluated and saved at every step, a run ends with the weights that it has without."""
    for name, often in (("never", 0), ("always", 1)):
        settings = {"eval_interval": often, "checkpoint_interval": often}
        train(make_recipe(**sections, train=settings), tmp_path / name)
    assert same_weights(tmp_path / "always", tmp_path / "never")


@pytest.mark.parametrize("sections", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_is_saved_is_what_was_evaluated(
    make_recipe: RecipeMaker, tmp_path: Path, sections: dict[str, Any]
) -> None:
    """A checkpoint's weights have the validation loss that the run logged."""
    result = train(make_recipe(**sections), tmp_path / "run")
    assert evaluate(tmp_path / "run")["val_loss"] == result.metrics["val_loss"]


@EVERY
def test_the_loss_falls(make_recipe: RecipeMaker, tmp_path: Path, sections: dict[str, Any]) -> None:
    """Sixty steps on repetitive text bring the loss down by a nat at least."""
    settings = {"max_iters": 60, "eval_interval": 0, "batch_size": 4, "min_lr": 1e-3}
    result = train(make_recipe(**sections, train=settings), tmp_path / "run")
    assert result.metrics["val_loss"] < rows(tmp_path / "run")[0]["loss"] - 1


def test_a_checkpoint_has_the_average_as_weights(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """What generation will use is the mean, and what training goes on from lies beside it."""
    train(make_recipe(optimizer="schedule_free_adamw"), tmp_path / "run")
    found, _ = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    name = "embedding.weight"
    x, y, z = found.model[name], *(found.optimizer[f"0/{name}/{part}"] for part in "yz")
    assert not torch.equal(x, y)
    torch.testing.assert_close(y, 0.1 * z + 0.9 * x)


def test_without_the_trained_weights_a_resumed_average_differs(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: going on from the average itself ends elsewhere."""
    recipe = make_recipe(optimizer="schedule_free_adamw", train={"checkpoint_interval": 2})
    train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        die_at(patch, 4)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "run")
    monkeypatch.setattr(Optimizers, "loaded", lambda optimizers: None)
    train(recipe, tmp_path / "run", resume=True)
    assert not same_weights(tmp_path / "run", tmp_path / "whole")
