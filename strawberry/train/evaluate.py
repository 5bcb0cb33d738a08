"""Validation loss on fixed windows: the same for every model, seed and batch size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from strawberry.train.batches import Batches
from strawberry.train.device import Machine, machine_for
from strawberry.train.documents import separator

if TYPE_CHECKING:
    from strawberry.data import Dataset
    from strawberry.model.language_model import LanguageModel
    from strawberry.plugin import Plugins


@torch.no_grad()
def validate(
    model: LanguageModel, batches: Batches, machine: Machine, dataset: Dataset, iters: int
) -> dict[str, float]:
    """`val_loss` in nats a token over `iters` batches, and `bits_per_byte` where there is text.

    The random state is left as it was, so that how often one looks does not change a run.
    """
    was_training = model.training
    model.eval()
    total = torch.zeros((), device=machine.device)
    with torch.random.fork_rng([machine.device] if machine.device.type == "cuda" else []):
        for number in range(iters):
            x, y = batches.val(number)
            with machine.autocast():
                total += model.loss(x, y).cross_entropy
    model.train(was_training)
    loss = total.item() / iters
    metrics = {"val_loss": loss}
    per_token = dataset.bytes_per_token("val")
    if per_token:
        metrics["bits_per_byte"] = loss / math.log(2) / per_token
    return metrics


def evaluate(
    folder: str | Path,
    *,
    iters: int | None = None,
    device: str = "auto",
    plugins: Plugins | None = None,
) -> dict[str, float]:
    """The validation metrics of a run's newest checkpoint; `iters` batches (None: the recipe's)."""
    from strawberry.data import open_dataset
    from strawberry.train.load import load_run

    run = load_run(folder, device=device, plugins=plugins)
    machine = machine_for(run.recipe)
    dataset = open_dataset(run.recipe)
    run.model.separator = separator(run.recipe, dataset)
    batches = Batches(dataset, run.recipe, machine.device)
    try:
        metrics = validate(
            run.model, batches, machine, dataset, iters or run.recipe.train.eval_iters
        )
    finally:
        batches.close()
    return {"step": run.step, **metrics}
