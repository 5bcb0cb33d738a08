"""Budgets of a cell, and the widths that make cells agree in a budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from strawberry.contracts import Bank
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.accounting import account
from strawberry.model.build import build
from strawberry.model.own import BesideBlock
from strawberry.recipe.spec import BlockSpec, Recipe
from strawberry.recipe.walk import blocks
from strawberry.training.planned import planned

if TYPE_CHECKING:
    from strawberry.ablate.cells import Cell
    from strawberry.ablate.plan import Plan
    from strawberry.model.language_model import LanguageModel

TOLERANCE = 0.01
"""Largest relative difference between matched cells."""
WIDTHS = (
    ("ffn", "n_ffn"),
    ("attention", "n_qkv"),
)
"""Fields of blocks that change only the size, in the order of preference."""
MAX_WIDTH = 1 << 20
"""Width at which a search gives up."""
MAX_REJECTED_WIDTHS = 128
"""Number of successive widths that a component may reject, such as those between multiples of its
number of heads, before a search gives up."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The cost of a cell. FLOPs are training FLOPs, forward and backward, unless named otherwise.

    Attributes:
        parameters: unique parameters of the model.
        active_parameters: parameters that take part in a token; of a bank of experts, the active
            ones.
        flops_per_token: training FLOPs of a token; with a curriculum, the mean over the run.
        cache_bytes: decoding cache of one sequence of block_size tokens.
        steps: optimizer steps of one trial.
        tokens: training tokens of one trial, repeated ones included.
    """

    parameters: int
    active_parameters: int
    flops_per_token: float
    cache_bytes: int
    steps: int
    tokens: int

    @property
    def flops(self) -> float:
        """Training FLOPs of one trial."""
        return self.flops_per_token * self.tokens

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**asdict(self), "flops": self.flops}


def tokens_per_step(recipe: Recipe) -> int:
    """Training tokens of an optimizer step."""
    train = recipe.train
    return train.batch_size * train.gradient_accumulation_steps * recipe.model.block_size


def budget(
    recipe: Recipe, known: dict[str, Budget] | None = None, model: LanguageModel | None = None
) -> Budget:
    """The training cost of a recipe; raises RecipeError if it can't be built.

    Args:
        recipe: the recipe to train.
        known: a cache of budgets by `_counting_key`; it is read, and extended by this one.
        model: the recipe's model on the meta device, if it is built already.
    """
    key = _counting_key(recipe)
    counted = (known or {}).get(key) or _count(recipe, model or build(recipe, "meta"))
    if known is not None:
        known[key] = counted
    steps = recipe.train.max_iters
    if recipe.curriculum:
        run = planned(recipe)
        mean = run.flops / run.tokens
        return replace(counted, steps=steps, tokens=run.tokens, flops_per_token=mean)
    return replace(counted, steps=steps, tokens=tokens_per_step(recipe) * steps)


def _counting_key(recipe: Recipe) -> str:
    """A text that differs where `_count` may differ: the recipe without what it never reads.

    The origin is in it because an objective may name a teacher's run relative to the recipe.
    """
    counted = recipe.to_dict()
    for name in ("name", "seed", "data", "curriculum"):
        counted.pop(name, None)
    counted["train"] = {k: v for k, v in counted["train"].items() if k != "max_iters"}
    return json.dumps([counted, str(recipe.origin)], sort_keys=True, default=str)


def _count(recipe: Recipe, model: LanguageModel) -> Budget:
    """The recipe's budget with steps and tokens at 0, for the caller to fill in."""
    report = account(recipe, model)
    return Budget(
        parameters=report.total_parameters,
        active_parameters=active_parameters(model),
        flops_per_token=report.flops_training_per_token,
        cache_bytes=report.cache_fixed_bytes
        + report.cache_bytes_per_token * recipe.model.block_size,
        steps=0,
        tokens=0,
    )


def parameters(model: torch.nn.Module) -> int:
    """Number of unique parameters."""
    return sum(p.numel() for p in model.parameters())


def active_parameters(model: LanguageModel) -> int:
    """Number of parameters that take part in a token.

    Of a bank's parameters it counts `Bank.active_share`, wherever they live. For a stack that
    several banks share it takes the largest of their shares, which is that of one use: the uses of
    a token may choose different experts.
    """
    shares: dict[torch.Tensor, float] = {}
    own = [module for module in model.modules() if isinstance(module, BesideBlock)]
    for use in (*model.visits(), *(use for block in own for use in block.visits())):
        for bank in use.block.modules():
            if isinstance(bank, Bank) and bank.active_share < 1:
                for parameter in use.weights.expert_parameters(bank):
                    shares[parameter] = max(shares.get(parameter, 0.0), bank.active_share)
    return round(sum(shares.get(p, 1.0) * p.numel() for p in model.parameters()))


def with_step_budget(cell: Cell, plan: Plan, base: Recipe) -> Cell:
    """The cell with the number of steps that the plan's token or FLOP budget allows."""
    assert cell.recipe is not None
    if plan.tokens is None and plan.flops is None:
        return cell
    if cell.recipe.curriculum:
        message = "a budget can't size a run with a curriculum; set train.max_iters instead"
        raise StrawberryError(f"{cell.name}: {message}")
    tokens = plan.tokens
    if plan.flops is not None:
        tokens = int(plan.flops / account(cell.recipe, cell.model).flops_training_per_token)
    assert tokens is not None
    steps = tokens // tokens_per_step(cell.recipe)
    if steps < 1:
        raise StrawberryError(
            f"{cell.name}: the budget is {tokens:,} tokens, less than one step of "
            f"{tokens_per_step(cell.recipe):,}"
        )
    return cell.changed({"train.max_iters": steps}, base)


def match_width(cell: Cell, baseline: Cell, plan: Plan, base: Recipe) -> Cell:
    """The cell with a width that matches the baseline in `plan.match`.

    Where one width is too coarse, as with many experts, it stays just below and the next width
    closes the gap. Raises StrawberryError if that fails; for measured time the nearest width is
    taken.
    """
    assert cell.recipe is not None
    measure = MEASURES[plan.match]
    goal = measure(baseline)
    if abs(measure(cell) / goal - 1) <= TOLERANCE / 10:
        return cell
    tried = []
    current = cell
    for path in [plan.width] if plan.width else list(_widths(cell.recipe)):
        try:
            nearest, below, off = _search_width(current, path, goal, measure, base)
        except StrawberryError as error:
            tried.append(str(error).splitlines()[0])
            continue
        if abs(off) <= TOLERANCE or plan.match == "time":
            return replace(nearest, resized=_difference(cell, nearest))
        tried.append(f"the nearest {path} is {off:+.1%} off")
        current = below
    hint = "; ".join(tried) or "there is no width to change; name one with --width"
    raise StrawberryError(f"can't match {plan.match}: {hint}")


def _difference(before: Cell, after: Cell) -> str:
    """The changed widths, as `path: a -> b`."""
    return ", ".join(
        f"{path}: {'/'.join(sorted({str(v) for v in _values_at(before, path)})) or '-'} -> {value}"
        for path, value in after.patch.items()
        if before.patch.get(path) != value
    )


def _widths(recipe: Recipe) -> Iterator[str]:
    """Paths of the widths that a block of the recipe has."""
    for part, name in WIDTHS:
        if any(_has(block, part, name) for block in blocks(recipe.model.stack)):
            yield f"model.stack.*.{part}.{name}"


def _has(block: BlockSpec, part: str, name: str) -> bool:
    spec = block.components.get(part)
    return spec is not None and name in spec.fields


def _search_width(
    cell: Cell, path: str, goal: float, measure: Callable[[Cell], float], base: Recipe
) -> tuple[Cell, Cell, float]:
    """The cells with the nearest width, and with the largest width below the goal.

    The cost grows nearly in proportion to the width. The next width to try is where a line through
    the nearest tried widths meets the goal. Widths that components reject are skipped. Also returns
    the relative error of the nearest width.
    """
    known: dict[int, float] = {}
    built: dict[int, Cell] = {}
    rejected: dict[int, str] = {}

    def at(width: int) -> int:
        """Measure the width, or the first one after it that works; returns that width."""
        for candidate in range(width, width + MAX_REJECTED_WIDTHS):
            if candidate in rejected:
                continue
            if candidate in known:
                return candidate
            try:
                built[candidate] = cell.changed({path: candidate}, base)
                known[candidate] = measure(built[candidate])
            except RecipeError as error:
                rejected[candidate] = str(error).splitlines()[0]
            else:
                return candidate
        raise StrawberryError(rejected[width])

    low = at(1)
    if known[low] > goal * (1 + TOLERANCE):
        raise StrawberryError(f"even {path}={low} exceeds the budget")
    high = at(64)
    while known[high] < goal:
        low, high = high, at(high * 2)
        if high > MAX_WIDTH:
            raise StrawberryError(f"{path} would have to exceed {MAX_WIDTH}")
    top = known[high]
    while high - low > 1 and top > known[low]:
        share = (goal - known[low]) / (top - known[low])
        guess = min(high - 1, max(low + 1, round(low + share * (high - low))))
        resized = at(guess)
        if resized >= high:  # nothing in between works from there on
            high = guess
        elif known[resized] <= goal:
            low = resized
        else:
            high, top = resized, known[resized]
    nearest = min(known, key=lambda width: abs(known[width] - goal))
    below = max((width for width in known if known[width] <= goal), default=nearest)
    return built[nearest], built[below], known[nearest] / goal - 1


def _values_at(cell: Cell, path: str) -> Iterator[Any]:
    assert cell.recipe is not None
    part, _, name = path.removeprefix("model.stack.*.").partition(".")
    for block in blocks(cell.recipe.model.stack):
        if _has(block, part, name):
            yield block.components[part].fields[name]


def seconds_per_step(recipe: Recipe, steps: int = 5) -> float:
    """Median seconds of a training step on random tokens here, after two steps to warm up."""
    from strawberry.ranks.world import World
    from strawberry.runs.device import machine_for
    from strawberry.training.engine import engine_for
    from strawberry.training.optimizers import Optimizers
    from strawberry.training.step import Step

    machine, train = machine_for(recipe), recipe.train
    torch.manual_seed(0)
    engine = engine_for(recipe, World(), machine)
    engine.model.train()
    # Which id begins a document only the data knows; of random tokens any one does.
    engine.model.separator = 0 if train.document_mask else None
    optimizers = Optimizers(recipe, engine.model.parameter_infos(), machine.device)
    shape = (train.batch_size, recipe.model.block_size)
    tokens = torch.randint(recipe.model.vocab_size, shape, device=machine.device)
    parts = [(tokens, tokens)] * train.gradient_accumulation_steps
    step = Step(engine, optimizers, lambda _: parts, machine, train.grad_clip)
    _, _, *seconds = step.timed(range(steps + 2))
    return median(seconds)


def _time(cell: Cell) -> float:
    assert cell.recipe is not None
    return seconds_per_step(cell.recipe)


def _flops(cell: Cell) -> float:
    assert cell.recipe is not None
    return account(cell.recipe, cell.model).flops_training_per_token


MEASURES: dict[str, Callable[[Cell], float]] = {
    "params": lambda cell: float(parameters(cell.model)),
    "active_params": lambda cell: float(active_parameters(cell.model)),
    "flops": _flops,
    "time": _time,
}
"""Costs in which cells can be made to agree."""
