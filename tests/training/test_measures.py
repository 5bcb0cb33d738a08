"""Metrics at evaluations besides the loss, and trackers that end a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from strawberry.contracts import StopRun, Tracker
from strawberry.data import open_dataset
from strawberry.generation.load import load_run
from strawberry.training import evaluate, train
from strawberry.training.batches import Batches
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import rows


def test_top_k_is_counted_one_by_one(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Over all rows, in a run and by `eval`; the loss is the same without it."""
    recipe = make_recipe(measures=[{"use": "top_k", "k": 3}], model={"dropout": 0.0})
    told = train(recipe, tmp_path / "run").metrics
    plain = train(make_recipe(model={"dropout": 0.0}), tmp_path / "plain").metrics
    assert told["val_loss"] == plain["val_loss"]
    model = load_run(tmp_path / "run").model.requires_grad_(requires_grad=False)
    batches = Batches(open_dataset(recipe), recipe, torch.device("cpu"))
    right, entropy, count = 0, 0.0, 0
    for row in range(4):
        rows_of = batches.val(row, 1)
        for logits, target in zip(model(rows_of.x)[0].double(), rows_of.y[0].tolist(), strict=True):
            right += target in logits.argsort(descending=True)[:3].tolist()
            p = logits.softmax(-1)
            entropy, count = entropy - float((p * p.log()).sum()), count + 1
    assert told["val_top_3_accuracy"] == pytest.approx(right / count)
    assert told["val_entropy"] == pytest.approx(entropy / count, rel=1e-5)
    assert evaluate(tmp_path / "run")["val_top_3_accuracy"] == pytest.approx(right / count)


class Enough(Tracker):
    """Ends its run after the third step."""

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """After a logged step."""
        if step == 3:
            raise StopRun


def test_a_tracker_ends_a_run(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """It is evaluated and saved after the next step, and finished; a resumed run goes on."""
    recipe = make_recipe(train={"eval_interval": 0})
    result = train(recipe, tmp_path / "run", trackers=[Enough()])
    assert result.steps == 4
    assert "val_loss" in rows(tmp_path / "run")[-1]
    assert load_run(tmp_path / "run").step == 4
    assert train(recipe, tmp_path / "run", resume=True).steps == 8
