import math
from pathlib import Path

import numpy as np
import pytest
import torch

import strawberry
from strawberry.data import open_dataset
from strawberry.runs.device import machine_for
from strawberry.training import evaluate, train
from strawberry.training.batches import Batches
from strawberry.training.engine import Engine
from strawberry.training.evaluate import standard_error, validate
from tests.training.conftest import RecipeMaker


def test_is_the_mean_over_the_fixed_batches(make_recipe: RecipeMaker) -> None:
    """Without dropout, without gradients, and in nats; bits per byte follow from it."""
    recipe = make_recipe()
    machine, dataset, model = machine_for(recipe), open_dataset(recipe), strawberry.build(recipe)
    batches = Batches(dataset, recipe, machine.device)
    metrics = validate(Engine(model.train()), batches, machine, 3)
    model.eval()
    with torch.no_grad():
        rows = batches.val(0, 3 * recipe.train.batch_size)
        logits = model(rows.x).flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(logits, rows.y.flatten()).item()
    assert metrics["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert dataset.tokenizer is not None
    targets = rows.y.flatten().tolist()
    text = dataset.tokenizer.decode_bytes(targets).replace(b"<|eot|>", b"")
    bits = expected * len(targets) / math.log(2)
    assert metrics["bits_per_byte"] == pytest.approx(bits / len(text), rel=1e-5)


def test_leaves_mode_and_random_state_as_they_were(make_recipe: RecipeMaker) -> None:
    """A model in training goes on in training, and dropout draws what it would have drawn."""
    recipe = make_recipe()
    machine, dataset, model = machine_for(recipe), open_dataset(recipe), strawberry.build(recipe)
    batches = Batches(dataset, recipe, machine.device)
    for training in (True, False):
        model.train(training)
        before = torch.get_rng_state()
        validate(Engine(model), batches, machine, 1)
        assert model.training is training
        assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())


def test_of_a_run_folder_is_what_training_measured(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Evaluated afterwards, from the checkpoint, a run has the loss of its last evaluation."""
    result = train(make_recipe(), tmp_path / "run")
    found = evaluate(result.folder)
    assert found["step"] == 8
    assert found["val_loss"] == pytest.approx(result.metrics["val_loss"], rel=1e-6)
    assert evaluate(result.folder, iters=5)["val_loss"] != found["val_loss"]


def test_the_standard_error_is_that_of_rows(make_recipe: RecipeMaker) -> None:
    """Against the mean and deviation of rows that are measured one by one, however batched."""
    recipe = make_recipe(model={"dropout": 0.0})
    machine, dataset, model = machine_for(recipe), open_dataset(recipe), strawberry.build(recipe)
    batches = Batches(dataset, recipe, machine.device)
    metrics = validate(Engine(model), batches, machine, 3)
    model.eval()
    n = 3 * recipe.train.batch_size
    with torch.no_grad():
        rows = [batches.val(number, 1) for number in range(n)]
        losses = [
            torch.nn.functional.cross_entropy(model(row.x)[0], row.y[0]).item() for row in rows
        ]
    assert metrics["val_loss_se"] == pytest.approx(np.std(losses, ddof=1) / math.sqrt(n), rel=1e-4)


def test_the_standard_error_of_a_ratio() -> None:
    """Unequal rows, against the spread of the ratio over random samples of them; one has none."""
    draw = np.random.default_rng(0)
    counts = draw.integers(1, 50, (4000, 40))
    sums = counts * 2.0 + draw.normal(0, 1, counts.shape) * np.sqrt(counts)
    ratios = sums.sum(1) / counts.sum(1)
    found = [standard_error(list(s), list(c)) for s, c in zip(sums, counts, strict=True)]
    assert np.mean(found) == pytest.approx(np.std(ratios), rel=0.05)
    assert standard_error([3.0, 0.0], [2, 0]) is None
