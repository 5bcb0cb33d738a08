"""The rungs of a ladder, made ready: every architecture at every size, held to the same budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from strawberry.ablate.cells import Cell, cells
from strawberry.ablate.fair import Budget
from strawberry.ablate.preparing import PreparedPlan, prepare_cells
from strawberry.errors import StrawberryError
from strawberry.ladder.plan import LadderPlan
from strawberry.ladder.scale import grow, without_embeddings
from strawberry.model.accounting import account
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


@dataclass(frozen=True, slots=True)
class Size:
    """What an architecture is on a rung.

    Attributes:
        without_embeddings: unique parameters, token embedding and head aside.
        once: of these, those that each token meets once.
        recurred: of these, those inside of a recursion.
        steps: how often these are run; 1 without recursion.
        learning_rate: the peak.
    """

    without_embeddings: int
    once: int
    recurred: int
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Rung:
    """A size of the ladder.

    Attributes:
        number: from 0, the smallest.
        growth: how much larger the baseline is than the recipe.
        prepared: what an ablation of this rung trains.
        sizes: of each architecture that can be built, by name.
    """

    number: int
    growth: Growth
    prepared: PreparedPlan
    sizes: Mapping[str, Size]

    def budget(self, name: str) -> Budget:
        """What an architecture costs here."""
        return self.prepared.budgets[name]

    def rows(self) -> list[dict[str, Any]]:
        """What every architecture is here, as JSON."""
        return [
            {
                "rung": self.number,
                "architecture": cell.name,
                "parameters": self.budget(cell.name).parameters,
                **asdict(self.sizes[cell.name]),
                "flops_per_token": self.budget(cell.name).flops_per_token,
                "tokens": self.budget(cell.name).tokens,
                "training_flops": self.budget(cell.name).flops,
                "optimizer_steps": self.budget(cell.name).steps,
                "patch": dict(cell.patch),
                "resized": cell.resized,
            }
            for cell in self.prepared.live
        ]


def make_rungs(ladder: LadderPlan, plugins: Plugins) -> list[Rung]:
    """Every rung; raises StrawberryError if one can't be built or held to its budget."""
    base, made = cells(ladder.plan, plugins)
    live = [cell for cell in made if cell.recipe is not None]
    for cell in made:
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
    made: list[Cell],
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
        cells={cell.name: dict(cell.patch) for cell in made},
        tokens=tokens,
        flops=flops,
        tune=ladder.plan.tune if tuned else {},
        campaign=CAMPAIGN,
    )
    larger = [
        cell.changed(grown(cell.recipe, growth), base) for cell in made if cell.recipe is not None
    ]
    first = prepare_cells(plan, base, larger, known)
    _whole(first, number)
    small = {cell.name: cell.recipe for cell in made if cell.recipe is not None}
    factor = rate_factor(ladder.how.rate, growth, have)
    # What goes by steps is set once the budget has said how many there are.
    paced = [_paced(cell, small[cell.name], base, factor, plan.tune) for cell in first.live]
    done = replace(plan, match="none", tokens=None, flops=None)
    prepared = prepare_cells(done, base, paced, known)
    _whole(prepared, number)
    return Rung(number, growth, replace(prepared, plan=plan), {
        cell.name: size_of(cell) for cell in prepared.live
    })  # fmt: skip


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
    found = {RATE: recipe.train.learning_rate}
    if recipe.train.min_lr:
        found["train.min_lr"] = recipe.train.min_lr
    alone = len(recipe.optimizer) == 1
    for step in walk_components(recipe.optimizer, "optimizer"):
        value = step.spec.fields.get("lr") if isinstance(step.spec, ComponentSpec) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            path = step.path.replace("optimizer[0]", "optimizer") if alone else step.path
            found[f"{path}.lr"] = float(value)
    return found


def size_of(cell: Cell) -> Size:
    """What a cell's model is made of."""
    assert cell.recipe is not None
    report = account(cell.recipe, cell.model)
    recurred = [part for part in report.parts if part.uses > 1]
    inside = sum(part.parameters for part in recurred)
    uses = sum(part.uses * part.parameters for part in recurred)
    without = without_embeddings(cell.model)
    steps = round(uses / inside) if inside else 1
    return Size(without, without - inside, inside, steps, cell.recipe.train.learning_rate)
