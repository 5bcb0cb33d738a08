"""Prepare a plan: build its cells, apply budgets, and reject incomparable cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from strawberry.ablate.cells import Cell, cells
from strawberry.ablate.fair import Budget, budget, match_width, with_step_budget
from strawberry.ablate.plan import Plan, Range
from strawberry.ablate.seeds import check_effect, check_varied
from strawberry.ablate.trials import identity, matters
from strawberry.data import open_dataset
from strawberry.errors import StrawberryError
from strawberry.model.build import build
from strawberry.model.risks import ahead
from strawberry.plugin import Plugins
from strawberry.plugin.words import did_you_mean
from strawberry.recipe import patch
from strawberry.recipe.spec import Recipe
from strawberry.training.horizon import untimely

RUNGS = (0.25, 0.5)
"""Fractions of the steps after which successive halving drops half of the remaining cells."""


@dataclass(slots=True)
class PreparedPlan:
    """A plan ready to run: its recipe, and its cells with budgets, baseline first."""

    plan: Plan
    base: Recipe
    cells: list[Cell]
    budgets: dict[str, Budget] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def live(self) -> list[Cell]:
        """The runnable cells."""
        return [cell for cell in self.cells if cell.recipe is not None]

    def warn(self, cell: str, warnings: Sequence[str]) -> None:
        """Add what the report says about a cell, once."""
        known = self.warnings.setdefault(cell, [])
        known += [warning for warning in warnings if warning not in known]


def prepare(plan: Plan, plugins: Plugins, known: dict[str, Budget] | None = None) -> PreparedPlan:
    """Build every cell, apply the plan's budget, and match its widths.

    A cell that can't run as planned is left out with a reason. So is a cell that is the same trial
    as another.

    Args:
        plan: the plan.
        plugins: resolve names.
        known: budgets counted before; see `budget`.

    Raises:
        RecipeError: the recipe or the baseline can't be built.
        StrawberryError: the same, a budget can't be met, the metric isn't measured, or all cells
            are the same trial.
    """
    return prepare_cells(plan, *cells(plan, plugins), known)


def prepare_cells(
    plan: Plan, base: Recipe, cells: Sequence[Cell], known: dict[str, Budget] | None = None
) -> PreparedPlan:
    """The same for cells of one's own over a recipe; the first is the baseline."""
    done: list[Cell] = []
    for cell in cells:
        try:
            done.append(_ready(cell, done[0] if done else None, plan, base))
        except StrawberryError as error:
            if not done:  # the baseline
                raise
            done.append(replace(cell, recipe=None, skipped=str(error).splitlines()[0]))
    prepared = PreparedPlan(plan, base, _distinct(done))
    for cell in prepared.live:
        assert cell.recipe is not None
        prepared.budgets[cell.name] = budget(cell.recipe, known, cell.model)
        warnings = ahead(cell.recipe, cell.model)
        prepared.warnings[cell.name] = warnings + untimely(cell.recipe)
    return prepared


def _ready(cell: Cell, baseline: Cell | None, plan: Plan, base: Recipe) -> Cell:
    """The cell as it will run; raises StrawberryError if it can't."""
    if cell.recipe is None:
        return cell
    if baseline is not None and plan.match != "none":
        cell = match_width(cell, baseline, plan, base)
    cell = with_step_budget(cell, plan, base)
    assert cell.recipe is not None
    warnings = ahead(cell.recipe, cell.model) if plan.causal else []
    if warnings:
        whose = "the baseline sees later tokens: " if baseline is None else ""
        raise StrawberryError(f"{whose}{warnings[0]}")
    for path in cell.patch.keys() & plan.tune.keys():
        raise StrawberryError(
            f"{path}: is both varied and tuned; tuning would override the varied value"
        )
    check_varied(plan.vary_seed, cell.recipe)
    check_effect(plan.vary_seed, cell.recipe)
    check_last(plan, cell.recipe)
    for values in tuned_values(plan):
        tried = patch(base, {**cell.patch, **values})
        check_varied(plan.vary_seed, tried)
        check_last(plan, tried)
    check_metric(plan.metric, cell.recipe)
    return cell


def tuned_values(plan: Plan) -> Iterator[dict[str, Any]]:
    """Each value that tuning may try, by itself; for a range, its ends.

    Raises StrawberryError for a path that has no effect on a trial.
    """
    for path, values in plan.tune.items():
        if not matters(path):
            raise StrawberryError(f"{path}: has no effect on a trial, so it can't be tuned")
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            yield {path: value}


def _distinct(candidates: list[Cell]) -> list[Cell]:
    """The cells, without those that are the same trial as an earlier one.

    Raises StrawberryError if nothing remains to compare.
    """
    first: dict[str, Cell] = {}
    distinct = []
    for cell in candidates:
        if cell.recipe is not None:
            other = first.setdefault(identity(cell.recipe), cell)
            if other is not cell:
                paths = [p for p in {**cell.patch, **other.patch} if not matters(p)]
                why = f": {', '.join(paths)} has no effect on a trial" if paths else ""
                text = f"the same trial as {other.name}{why}"
                cell = replace(cell, recipe=None, skipped=text)  # noqa: PLW2901
        distinct.append(cell)
    alike = [cell.skipped for cell in distinct if cell.skipped.startswith("the same trial as ")]
    if alike and len(first) == 1:
        raise StrawberryError(f"there is nothing to compare: {alike[0]}")
    return distinct


def shortened(steps: int, rung: float) -> int:
    """The number of steps of a halving trial."""
    return max(1, int(steps * rung))


def check_last(plan: Plan, recipe: Recipe) -> None:
    """Raises StrawberryError if a trial has fewer evaluations than `last`."""
    steps = recipe.train.max_iters
    if plan.halving:
        steps = shortened(steps, RUNGS[0])
    interval = recipe.train.eval_interval
    has = -(-steps // interval) if interval > 0 else 1  # the last step is always evaluated
    if has < plan.last:
        after = f"every {interval} of {steps} steps" if interval > 0 else "after the last step"
        raise StrawberryError(
            f"last: a trial has {has} evaluation{'s' if has > 1 else ''}, {after}, but "
            f"{plan.last} are needed; lower train.eval_interval"
        )


def check_metric(metric: str, recipe: Recipe) -> None:
    """Raises StrawberryError if an evaluation of this recipe doesn't measure the metric.

    Metrics of the data are known at once. For the others the model is initialised and measured on
    one row.
    """
    if metric == "val_loss":
        return
    dataset = open_dataset(recipe)
    _, targets = dataset.rows("val", 0, 1, block_size=recipe.model.block_size, seed=recipe.seed)
    by_data = {"bits_per_byte": dataset.n_bytes("val", targets) is not None}
    by_data |= dict.fromkeys(("val_accuracy", "val_solved"), dataset.exact)
    if by_data.get(metric):
        return
    known = _measured(recipe)
    if metric not in known:
        raise StrawberryError(
            f"metric: an evaluation doesn't measure {metric!r}; available: "
            f"{', '.join(sorted(known))}{did_you_mean(metric, known)}"
        )


def _measured(recipe: Recipe) -> set[str]:
    """The names of the metrics that an evaluation of this recipe measures."""
    from strawberry.runs.device import machine_for
    from strawberry.training.batches import Batches
    from strawberry.training.engine import Engine
    from strawberry.training.evaluate import measure_all, validate

    small = {"train.batch_size": 1, "train.gradient_accumulation_steps": 1}
    recipe = patch(recipe, small)
    machine = machine_for(recipe)
    model = build(recipe, machine.device)
    batches = Batches(open_dataset(recipe), recipe, machine.device)
    try:
        engine = Engine(model)
        return {*validate(engine, batches, machine, 1), *measure_all(engine, batches, machine, 1)}
    finally:
        batches.close()
