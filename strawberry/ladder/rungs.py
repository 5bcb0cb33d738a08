"""The rungs of a ladder, made ready: every architecture at every size, held to the same budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from strawberry.ablate.cells import Cell, cells
from strawberry.ablate.fair import Budget
from strawberry.ablate.plan import Plan
from strawberry.ablate.preparing import PreparedPlan, prepare_cells
from strawberry.errors import StrawberryError
from strawberry.ladder.cooldowns import Branch, shared_steps, shortened
from strawberry.ladder.plan import LadderPlan
from strawberry.ladder.scale import grow, without_embeddings
from strawberry.ladder.sizes import Size, size_of, size_rows
from strawberry.plugin import Plugins
from strawberry.recipe.growth import Growth, grown
from strawberry.recipe.spec import ComponentSpec, Recipe
from strawberry.recipe.walk import walk_components

RATE: Final = "train.learning_rate"
COMPUTE_POWER: Final = -0.125
"""The power of compute with which the best learning rate falls (DeepSeek LLM, arXiv 2401.02954)."""
CAMPAIGN: Final = "none"
"""Verdicts of single rungs are no findings: the ladder asks one question, of all rungs."""
EVALUATIONS: Final = 4
"""Evaluations of a run, equally far apart: curves of all rungs are compared there."""


@dataclass(frozen=True)
class Rung:
    """A size of the ladder.

    Attributes:
        number: from 0, the smallest.
        growth: how much larger the baseline is than the recipe.
        prepared: what an ablation of this rung trains.
        sizes: of each architecture that can be built, by name.
        branches: cooldowns that branch from these runs, from the shortest.
    """

    number: int
    growth: Growth
    prepared: PreparedPlan
    sizes: Mapping[str, Size]
    branches: tuple[Branch, ...] = ()

    def budget(self, name: str) -> Budget:
        """What an architecture costs here."""
        return self.prepared.budgets[name]

    def rows(self) -> list[dict[str, Any]]:
        """What every architecture is here, as JSON."""
        return size_rows(self.number, self.prepared, self.sizes, {})

    def all_rows(self) -> list[dict[str, Any]]:
        """The same, and what every architecture is at each further cooldown."""
        further = (row for branch in self.branches for row in self.branch_rows(branch))
        return [*self.rows(), *further]

    def branch_rows(self, branch: Branch) -> list[dict[str, Any]]:
        """What every architecture is at one of its branches, as JSON."""
        return size_rows(self.number, branch.prepared, branch.sizes, branch.shared)


def make_rungs(ladder: LadderPlan, plugins: Plugins) -> list[Rung]:
    """Every rung; raises StrawberryError if one can't be built or held to its budget."""
    base, every = cells(ladder.plan, plugins)
    live = [cell for cell in every if cell.recipe is not None]
    for cell in every:
        if cell.recipe is None:
            raise StrawberryError(f"{cell.name}: {cell.skipped}")
    if any("train.max_iters" in cell.patch for cell in live):
        raise StrawberryError("train.max_iters: can't vary; a rung has tokens by its size")
    baseline = live[0].recipe
    assert baseline is not None
    have = without_embeddings(live[0].model)
    known: dict[str, Budget] = {}
    rungs: list[Rung] = []
    for number in range(ladder.how.rungs):
        above = rungs[-1].growth.parameters if rungs else 0
        growth = grow(baseline, have * ladder.how.factor**number, above)
        rungs.append(_rung(ladder, number, base, live, growth, have, known))
    return rungs


def _rung(
    ladder: LadderPlan,
    number: int,
    base: Recipe,
    every: list[Cell],
    growth: Growth,
    have: int,
    known: dict[str, Budget],
) -> Rung:
    """A rung: the architectures grown, matched, and given tokens, rates and evaluations."""
    tokens, flops = ladder.tokens(number, growth.parameters), ladder.flops(number)
    tuned = number < ladder.how.tuned_rungs
    plan = replace(
        ladder.plan,
        vary={},
        cells={cell.name: dict(cell.patch) for cell in every},
        tokens=tokens,
        flops=flops,
        tune=ladder.plan.tune if tuned else {},
        campaign=CAMPAIGN,
    )
    larger = [
        cell.changed(grown(cell.recipe, growth), base) for cell in every if cell.recipe is not None
    ]
    first = prepare_cells(plan, base, larger, known)
    _whole(first, number)
    small = {cell.name: cell.recipe for cell in every if cell.recipe is not None}
    factor = rate_factor(ladder.how.rate, growth, have)
    # What goes by steps is set once the budget has said how many there are.
    paced = [_paced(cell, small[cell.name], base, factor, plan.tune) for cell in first.live]
    done = replace(plan, match="none", tokens=None, flops=None)
    branches = []
    for share in sorted(set(ladder.how.cooldowns)):
        short = [shortened(cell, share, EVALUATIONS, base) for cell in paced]
        branches.append(_branch(share, paced, short, replace(done, tune={}), base, known))
    prepared = prepare_cells(done, base, _saving(paced, branches, base), known)
    _whole(prepared, number)
    sizes = {cell.name: size_of(cell) for cell in prepared.live}
    return Rung(number, growth, replace(prepared, plan=plan), sizes, tuple(branches))


def _branch(
    share: float,
    long: list[Cell],
    short: list[Cell],
    plan: Plan,
    base: Recipe,
    known: dict[str, Budget],
) -> Branch:
    """The cooldowns at a share of a rung's tokens, made ready."""
    shared = {
        one.name: shared_steps(one.recipe, other.recipe)
        for one, other in zip(long, short, strict=True)
        if one.recipe is not None and other.recipe is not None
    }
    prepared = prepare_cells(plan, base, short, known)
    return Branch(share, prepared, {c.name: size_of(c) for c in prepared.live}, shared)


def _saving(long: list[Cell], branches: list[Branch], base: Recipe) -> list[Cell]:
    """The cells of the long runs, with a checkpoint where each branch leaves."""
    if not branches:
        return long
    path = "train.checkpoint_steps"
    return [
        cell.changed({path: sorted({each.shared[cell.name] for each in branches})}, base)
        for cell in long
    ]


def _whole(prepared: PreparedPlan, number: int) -> None:
    """Raises StrawberryError if a rung lacks an architecture."""
    for cell in prepared.cells:
        if cell.recipe is None:
            raise StrawberryError(f"rung {number + 1}: {cell.name}: {cell.skipped}")


def _paced(cell: Cell, small: Recipe, base: Recipe, factor: float, tuned: Collection[str]) -> Cell:
    """The cell with the learning rate of its size, and what goes by steps in the same shares."""
    assert cell.recipe is not None
    train, before = cell.recipe.train, small.train
    share = train.max_iters / before.max_iters
    changes: dict[str, Any] = {
        "train.eval_interval": -(-train.max_iters // EVALUATIONS),
        "train.checkpoint_interval": max(1, train.max_iters // 2),
    }
    if before.warmup_iters:
        changes["train.warmup_iters"] = max(1, round(before.warmup_iters * share))
    if before.lr_decay_iters is not None:
        changes["train.lr_decay_iters"] = max(1, round(before.lr_decay_iters * share))
    if factor != 1:
        carried = {path: rate * factor for path, rate in rates(small).items()}
        changes |= {path: float(f"{rate:.4g}") for path, rate in carried.items()
                    if path not in tuned}  # fmt: skip
    return cell.changed(changes, base)


def rate_factor(rule: str, growth: Growth, have: int) -> float:
    """What a rung's learning rates are multiplied by.

    Args:
        rule: one of `plan.RULES`.
        growth: the rung's.
        have: the recipe's parameters, embeddings aside. Compute grows as their square.
    """
    if rule == "compute":
        ratio: float = (growth.parameters / have) ** (2 * COMPUTE_POWER)
        return ratio
    return 1 / growth.width if rule == "width" else 1.0


def rates(recipe: Recipe) -> dict[str, float]:
    """Every peak learning rate that a recipe has, by its path: its own, and those of optimizers."""
    rates = {RATE: recipe.train.learning_rate}
    if recipe.train.min_lr:
        rates["train.min_lr"] = recipe.train.min_lr
    alone = len(recipe.optimizer) == 1
    for step in walk_components(recipe.optimizer, "optimizer"):
        value = step.spec.fields.get("lr") if isinstance(step.spec, ComponentSpec) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            path = step.path.replace("optimizer[0]", "optimizer") if alone else step.path
            rates[f"{path}.lr"] = float(value)
    return rates
