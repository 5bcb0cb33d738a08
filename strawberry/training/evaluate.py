"""Validation loss on fixed rows: the same ones for every model, seed and batch size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from strawberry.contracts import ItemScores, Measure, MeasuredModel, Router, exact
from strawberry.contracts.data import TEST, Ids, Split
from strawberry.errors import PluginError
from strawberry.model.mode import in_mode
from strawberry.referee.terms import OWN
from strawberry.runs import randomness
from strawberry.runs.averages import run_site
from strawberry.runs.device import Machine, machine_for
from strawberry.training.batches import Batches
from strawberry.training.documents import separator
from strawberry.training.engine import Engine
from strawberry.training.items import Keep, KeepItems, keeper
from strawberry.training.means import WeightedMeans
from strawberry.training.testing import ledger_around, open_test

if TYPE_CHECKING:
    from strawberry.data import Dataset
    from strawberry.plugin import Plugins
    from strawberry.recipe.spec import Recipe


TEST_TIMES = 10
"""Size of a test, in evaluations, if there are enough rows."""


@torch.no_grad()
def validate(
    engine: Engine,
    batches: Batches,
    machine: Machine,
    iters: int | None = None,
    *,
    split: Split = "val",
    keep: Keep | None = None,
) -> dict[str, float]:
    """`val_loss` in nats a token, and `bits_per_byte` for text.

    `val_loss_se` is the standard error of `val_loss` as an estimate for more text of this kind,
    from the spread between rows. All models are measured on the same rows, so most of it is common
    to them and does not affect their differences.

    It is measured on the first rows of the validation split, as many as `iters` steps use (None:
    the recipe's `eval_iters`), each once. All metrics are sums over these rows, so they don't
    depend on the division into batches and ranks.

    Of a mixture there is `val_NAME_loss` too, the loss on the rows of each source.

    If the data's targets are the only right answers, there are `val_accuracy`, the share of right
    ones, and `val_solved`, the share of sequences without an error. Tokens are routed as in
    generation. If training sees later tokens, as in expert choice, `val_loss_teacher` is the loss
    with that permission. The random state stays unchanged, so the number of evaluations does not
    change a run.

    Args:
        engine: the model.
        batches: rows of its data.
        machine: the machine.
        iters: number of rows, in steps.
        split: `val`; or `test`, with the same names of metrics.
        keep: receives the nats, and the number of targets, of each row.
    """
    model = engine.model
    with in_mode(model, training=False):
        metrics = _measure(
            engine, batches, machine, iters, split, answers=batches.dataset.exact, keep=keep
        )
        routers = [
            module for module in model.modules() if isinstance(module, Router) and module.teachable
        ]
        if routers:
            for router in routers:
                router.teach(True)
            taught = _measure(engine, batches, machine, iters, split)
            metrics["val_loss_teacher"] = taught["val_loss"]
            for router in routers:
                router.teach(False)
    return metrics


def _measure(
    engine: Engine,
    batches: Batches,
    machine: Machine,
    iters: int | None,
    split: Split,
    *,
    answers: bool = False,
    keep: Keep | None = None,
) -> dict[str, float]:
    """The metrics of `validate`, with the components' own as `val_NAME`."""
    world, size = engine.world, batches.recipe.train.batch_size
    rows = n_rows(batches, iters, split)
    nats: list[torch.Tensor] = []  # of each row; on the device, so that nothing waits for it
    asked: list[torch.Tensor] = []
    told = torch.zeros(4, dtype=torch.int64, device=machine.device)
    n_bytes: float | None = 0.0
    means = WeightedMeans()
    with randomness.held(machine.device):
        for first in range(0, rows, size):
            batch = batches.val(first, min(size, rows - first), split)
            with machine.autocast():
                loss = engine.measure(batch.x, batch.y, batch.numbers, answers=answers)
            nats.append(loss.rows[: batch.rows])
            asked.append((batch.y >= 0).sum(1)[: batch.rows])
            if loss.answers is not None:
                told += loss.answers
            n_bytes = None if n_bytes is None or batch.n_bytes is None else n_bytes + batch.n_bytes
            means.add(loss.terms, float(batch.rows))
    sums, counts = (
        _in_order(world.gather([part.cpu() for part in nats])),
        _in_order(world.gather([part.cpu() for part in asked])),
    )
    if keep is not None:
        keep(sums, counts)
    total, targets = math.fsum(sums), max(1, sum(counts))
    metrics = {"val_loss": total / targets}
    if (error := standard_error(sums, counts)) is not None:
        metrics["val_loss_se"] = error
    if (sources := batches.dataset.sources(split, 0, rows)) is not None:
        metrics |= source_losses(*sources, sums, counts)
    if n_bytes is not None and (all_bytes := sum(world.gather(n_bytes))):
        metrics["bits_per_byte"] = total / math.log(2) / all_bytes
    if answers and engine.model.objective.left_to_right:
        right, _, solved, tasks = world.sum(told).tolist()
        metrics |= {"val_accuracy": right / targets, "val_solved": solved / max(1, tasks)}
    # A term by the name of one of these metrics is not in its place.
    terms = {f"val_{name}": value for name, value in means.numbers(world).items()}
    return metrics | {name: value for name, value in terms.items() if name not in metrics}


def _in_order(ranks: Sequence[Sequence[torch.Tensor]]) -> list[Any]:
    """The ranks' measurements of their rows of each batch, in the order of the rows."""
    batches = zip(*ranks, strict=True)
    return [value for parts in batches for part in parts for value in part.tolist()]


def standard_error(sums: Sequence[float], counts: Sequence[int]) -> float | None:
    """Standard error of `sum(sums) / sum(counts)`, with the pairs as a sample of text.

    None with fewer than two counted pairs. To first order the ratio's error is the mean of `sums -
    ratio * counts` divided by the mean count (Cochran 1977, Sampling Techniques, 6.3).
    """
    pairs = [(s, c) for s, c in zip(sums, counts, strict=True) if c]
    n = len(pairs)
    if n < 2:
        return None
    targets = sum(c for _, c in pairs)
    ratio = math.fsum(s for s, _ in pairs) / targets
    squares = math.fsum((s - ratio * c) ** 2 for s, c in pairs)
    return math.sqrt(squares * n / (n - 1)) / targets


def source_losses(
    names: Sequence[str], numbers: Ids, sums: Sequence[float], counts: Sequence[int]
) -> dict[str, float]:
    """`val_NAME_loss` of each source of a mixture that has targets among these rows.

    Args:
        names: of the sources.
        numbers: the source of each row.
        sums: nats of each row.
        counts: targets of each row.
    """
    losses = {}
    for source, name in enumerate(names):
        mine = [row for row, number in enumerate(numbers) if number == source]
        if targets := sum(counts[row] for row in mine):
            losses[f"val_{name}_loss"] = math.fsum(sums[row] for row in mine) / targets
    return losses


def n_rows(batches: Batches, iters: int | None = None, split: Split = "val") -> int:
    """Number of rows of an evaluation: those of this many steps, each once.

    A test split, which is measured once, has `TEST_TIMES` as many unless specified.
    """
    train = batches.recipe.train
    step = train.batch_size * train.gradient_accumulation_steps
    wanted = (iters or train.eval_iters * (TEST_TIMES if split == TEST else 1)) * step
    there = batches.dataset.rows_in(split, batches.recipe.model.block_size)
    return wanted if there is None else min(wanted, max(1, there))


def measures_of(recipe: Recipe) -> list[Measure]:
    """The recipe's measures; raises RecipeError if one can't be built."""
    site = run_site(recipe)
    return [spec.construct(site, contract=Measure) for spec in recipe.measures]


@torch.no_grad()
def measure_all(
    engine: Engine,
    batches: Batches,
    machine: Machine,
    iters: int | None = None,
    *,
    split: Split = "val",
    keep: KeepItems | None = None,
) -> dict[str, float]:
    """The metrics of the recipe's measures, over the rows of an evaluation, as `val_NAME`.

    Items of a measure's own are no part of the data's splits, so with `test` they are left out.
    `keep` receives their scores by metric.
    """
    recipe, world = batches.recipe, engine.world
    measures = measures_of(recipe)
    if not measures:
        return {}
    sums: dict[str, torch.Tensor] = {}
    rows, size = n_rows(batches, iters, split), recipe.train.batch_size
    with in_mode(engine.model, training=False), randomness.held(machine.device):
        for first in range(0, rows, size):
            batch = batches.val(first, min(size, rows - first), split)
            for spec, measure in zip(recipe.measures, measures, strict=True):
                with machine.autocast():
                    parts = measure.measure(engine.logits, batch.x, batch.y)
                check_names(spec.use, parts)
                for name, part in parts.items():
                    pair = torch.stack([value.to(exact(machine.device)) for value in part])
                    sums[name] = sums[name] + pair if name in sums else pair
        scores = {} if split == TEST else _items(measures, engine, batches, machine)
    totals = {name: world.sum(pair).tolist() for name, pair in sums.items()}
    ratios = {f"val_{name}": total / max(count, 1) for name, (total, count) in totals.items()}
    for name, score in scores.items():
        ratios[f"val_{name}"] = score.ratio
        if keep is not None:
            keep(f"val_{name}", score)
    return ratios


def _items(
    measures: Sequence[Measure], engine: Engine, batches: Batches, machine: Machine
) -> dict[str, ItemScores]:
    """The scores of the measures' own items, by metric."""
    subject = MeasuredModel(
        engine.model, engine.logits, batches.dataset.tokenizer, engine.model.separator
    )
    scores: dict[str, ItemScores] = {}
    for spec, measure in zip(batches.recipe.measures, measures, strict=True):
        with spec.located(), machine.autocast():
            own = measure.items(subject)
            check_names(spec.use, own)
            scores.update(own)
    return scores


def check_names(use: str, names: Iterable[str]) -> None:
    """Raises PluginError if a measure calls a metric as an evaluation calls its own."""
    for name in names:
        if name in OWN:
            raise PluginError(
                f"measure {use}: {name!r} is the name of an evaluation's own metric, val_{name}"
            )


def evaluate(
    folder: str | Path,
    *,
    iters: int | None = None,
    device: str = "auto",
    plugins: Plugins | None = None,
    best: bool = False,
    average: str | None = None,
) -> dict[str, float]:
    """The validation metrics of a run's newest checkpoint, over `iters` steps' rows.

    None takes the recipe's `eval_iters`.

    `best` takes its best checkpoint instead; `average` names an average of the weights that is
    taken in their place.
    """
    (metrics,) = evaluate_depths(
        folder,
        [None],
        iters=iters,
        device=device,
        plugins=plugins,
        best=best,
        average=average,
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
    average: str | None = None,
    split: Split = "val",
    again: bool = False,
    dataset: Dataset | None = None,
    keep: Path | None = None,
) -> list[dict[str, float]]:
    """The validation metrics of a run with this many recursion steps; None: those of training.

    With `split` the locked test split is opened, which the ledger beside the run notes; `again`
    does so although it was opened before. `dataset` is the run's, where it is open already.
    `average` names an average of the weights to take in their place. `keep` is a file for the
    losses of rows (see `items`).

    Raises StrawberryError as `load_run`, `open_test` and `LanguageModel.set_steps` do.
    """
    from strawberry.data import open_dataset
    from strawberry.generation.load import load_run

    run = load_run(folder, device=device, plugins=plugins, best=best, average=average)
    machine = machine_for(run.recipe)
    if dataset is None and split == TEST:
        ledger = ledger_around(run.folder)
        dataset = open_test(run.recipe, ledger, again=again, folder=str(run.folder)).dataset
    dataset = open_dataset(run.recipe) if dataset is None else dataset
    run.model.separator = separator(run.recipe, dataset)
    batches = Batches(dataset, run.recipe, machine.device)
    rows = []
    kept = None if keep is None else keeper(keep, batches, split)
    try:
        for depth in depths:
            row: dict[str, float] = {"step": run.step}
            if depth is not None:
                run.model.set_steps(depth)
                row["recursion_steps"] = depth
            engine = Engine(run.model)
            metrics = validate(engine, batches, machine, iters, split=split, keep=kept)
            metrics |= measure_all(engine, batches, machine, iters, split=split)
            rows.append({**row, **metrics})
    finally:
        batches.close()
    return rows
