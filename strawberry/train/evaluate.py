"""Validation loss on fixed windows: the same for every model, seed and batch size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.train.batches import Batches
from strawberry.train.device import Machine, machine_for
from strawberry.train.documents import separator
from strawberry.train.parallel.engine import Engine

if TYPE_CHECKING:
    from strawberry.data import Dataset
    from strawberry.plugin import Plugins


@torch.no_grad()
def validate(
    engine: Engine, batches: Batches, machine: Machine, dataset: Dataset, iters: int
) -> dict[str, float]:
    """`val_loss` in nats a token over `iters` batches, and `bits_per_byte` where there is text.

    Where the data's targets are the only right answers there are `val_accuracy`, the share of them
    that is told, and `val_solved`, the share of sequences without a mistake. Tokens are routed as
    in generation. Where training chooses by looking ahead, as expert choice does,
    `val_loss_teacher` is what the same model comes to when it is allowed to here. The random state
    is left as it was, so that how often one looks does not change a run.
    """
    model = engine.model
    was_training = model.training
    model.eval()
    loss, others = _mean(engine, batches, machine, iters, answers=dataset.exact)
    metrics = {"val_loss": loss}
    per_token = dataset.bytes_per_token("val")
    if per_token:
        metrics["bits_per_byte"] = loss / math.log(2) / per_token
    metrics |= others
    routers = [module for module in model.modules() if hasattr(module, "teacher")]
    if routers:
        for router in routers:
            router.teacher = True  # type: ignore[assignment]
        metrics["val_loss_teacher"], _ = _mean(engine, batches, machine, iters)
        for router in routers:
            router.teacher = False  # type: ignore[assignment]
    model.train(was_training)
    return metrics


def _mean(
    engine: Engine, batches: Batches, machine: Machine, iters: int, *, answers: bool = False
) -> tuple[float, dict[str, float]]:
    """The mean loss, and the mean of what components report in evaluation, as `val_NAME`."""
    total = torch.zeros((), device=machine.device)
    others: dict[str, Tensor] = {}
    with torch.random.fork_rng([machine.device] if machine.device.type == "cuda" else []):
        for number in range(iters):
            x, y = batches.val(number)
            with machine.autocast():
                loss = engine.loss(x, y, answers=answers)
            total += loss.cross_entropy
            for name, value in loss.metrics.items():
                others[name] = others.get(name, torch.zeros_like(value)) + value
    mean = engine.world.mean
    values = {f"val_{name}": mean(value).item() / iters for name, value in others.items()}
    return mean(total).item() / iters, values


def evaluate(
    folder: str | Path,
    *,
    iters: int | None = None,
    device: str = "auto",
    plugins: Plugins | None = None,
    best: bool = False,
) -> dict[str, float]:
    """The validation metrics of a run's newest checkpoint; `iters` batches (None: the recipe's).

    `best` takes its best checkpoint instead.
    """
    (metrics,) = evaluate_depths(
        folder, [None], iters=iters, device=device, plugins=plugins, best=best
    )
    return metrics


def evaluate_depths(
    folder: str | Path,
    depths: Sequence[int | None],
    *,
    iters: int | None = None,
    device: str = "auto",
    plugins: Plugins | None = None,
    best: bool = False,
) -> list[dict[str, float]]:
    """The validation metrics of a run with so many recursion steps; None: those of training.

    Raises StrawberryError as `load_run` and `LanguageModel.set_steps` do.
    """
    from strawberry.data import open_dataset
    from strawberry.train.load import load_run

    run = load_run(folder, device=device, plugins=plugins, best=best)
    machine = machine_for(run.recipe)
    dataset = open_dataset(run.recipe)
    run.model.separator = separator(run.recipe, dataset)
    batches = Batches(dataset, run.recipe, machine.device)
    rows = []
    try:
        for depth in depths:
            row: dict[str, float] = {"step": run.step}
            if depth is not None:
                run.model.set_steps(depth)
                row["recursion_steps"] = depth
            found = validate(
                Engine(run.model), batches, machine, dataset, iters or run.recipe.train.eval_iters
            )
            rows.append({**row, **found})
    finally:
        batches.close()
    return rows
