"""`train.keep_best`: the checkpoint of the lowest validation loss stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from strawberry.errors import StrawberryError
from strawberry.generation import load_run
from strawberry.training import evaluate, measuring, train
from tests.runs.test_checkpoint import steps
from tests.training.conftest import RecipeMaker

SETTINGS = {
    "keep_best": True, "eval_interval": 1, "checkpoint_interval": 1, "keep_checkpoints": 1,
    "max_iters": 6, "lr_decay_iters": 6,
}  # fmt: skip


def script(losses: Iterator[float], patch: pytest.MonkeyPatch) -> None:
    """Let evaluations come to these losses."""
    original = measuring.validate

    def scripted(*arguments: Any, **options: Any) -> dict[str, float]:
        return {**original(*arguments, **options), "val_loss": next(losses)}

    patch.setattr(measuring, "validate", scripted)


def test_the_best_outlives_the_newest(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays through rotation and a resume, and can be loaded and evaluated; a NaN is no best."""
    script(iter([5.0, 3.0, 4.0, 3.5, float("nan"), 3.2]), monkeypatch)
    train(make_recipe(train={**SETTINGS, "max_iters": 3}), tmp_path / "run")
    train(make_recipe(train=SETTINGS), tmp_path / "run", resume=True)
    assert steps(tmp_path / "run" / "checkpoints") == ["step-00000002", "step-00000006"]
    best, newest = load_run(tmp_path / "run", best=True), load_run(tmp_path / "run")
    assert (best.step, newest.step) == (2, 6)
    one, other = (dict(run.model.named_parameters()) for run in (best, newest))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert evaluate(tmp_path / "run", best=True)["step"] == 2


def test_it_is_saved_when_it_is_measured(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the checkpoints that are due, and only where the recipe asks for it."""
    script(iter([5.0, 3.0, 4.0, 3.5, 3.3, 3.2] * 2), monkeypatch)
    train(make_recipe(train={**SETTINGS, "checkpoint_interval": 4}), tmp_path / "run")
    assert steps(tmp_path / "run" / "checkpoints") == ["step-00000002", "step-00000006"]
    settings = {**SETTINGS, "checkpoint_interval": 4, "keep_best": False}
    train(make_recipe(train=settings), tmp_path / "other")
    assert steps(tmp_path / "other" / "checkpoints") == ["step-00000006"]
    with pytest.raises(StrawberryError, match="keep_best"):
        load_run(tmp_path / "other", best=True)
