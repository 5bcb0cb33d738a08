"""The plan of an ablation: what is compared, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

from strawberry.ablate.alpha_spending import looks_of
from strawberry.ablate.noise import RATIO
from strawberry.ablate.seeds import VARIED
from strawberry.recipe.load import Setting
from strawberry.recipe.seeds import Randomness

Mode: TypeAlias = Literal["grid", "one_at_a_time", "leave_one_out", "paired", "random"]
Quantity: TypeAlias = Literal["none", "params", "active_params", "flops", "time"]
Count: TypeAlias = Annotated[int, Ge(1), Le(2**31 - 1)]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, on a logarithmic scale if they span a factor of ten."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """True if values are drawn on a logarithmic scale."""
        return self.low > 0 and self.high / self.low >= 10

    @property
    def whole(self) -> bool:
        """True if values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Values: TypeAlias = tuple[Any, ...] | Range


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFields:
    """The plain fields of a plan.

    Args:
        mode: `grid` takes all combinations; `one_at_a_time` the recipe, and each value by itself;
            `leave_one_out` the recipe, and the recipe without each part. `paired` takes the first
            values together, then the second ones; `random` draws `samples` of them, also from
            ranges.
        samples: number of cells drawn in `random`.
        max_seeds: maximum number of seeds if they are added.
        match: the cost in which cells are made to agree.
        width: the path that `match` resizes; null takes `n_ffn` where it is there.
        tune_seeds: seeds of each tuning trial.
        tune_trials: number of trials where a path to tune has a range.
        tokens: training token budget of each trial, in place of `train.max_iters`.
        flops: training FLOP budget of each trial, as an alternative.
        halving: stop the worse half of the cells early, in rungs.
        metric: metric to compare; lower is better, unless it ends with `accuracy` or `score`.
        last: number of a run's last evaluations whose mean is the metric.
        effect: smallest difference that matters, relative to the baseline's value.
        alpha: chance of any false finding in the whole table.
        noise_ratio: largest ratio of two cells' noises for which alpha holds.
        causal: leave out cells that see later tokens.
        campaign: sweeps with this name over the same validation text in the same folder share
            alpha; `none` corrects for no others.
    """

    mode: Mode = "grid"
    samples: Count = 10
    max_seeds: Annotated[int, Ge(3), Le(2**31 - 1)] = 10
    match: Quantity = "none"
    width: str | None = None
    tune_seeds: Count = 1
    tune_trials: Count = 6
    tokens: Annotated[int, Ge(1), Le(10**18)] | None = None
    flops: Annotated[float, Gt(0), Le(1e30)] | None = None
    halving: bool = False
    metric: str = "val_loss"
    last: Count = 1
    effect: Annotated[float, Gt(0)] = 0.01
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    noise_ratio: Annotated[float, Ge(1), Le(100)] = RATIO
    causal: bool = False
    campaign: str = "main"


@dataclass(frozen=True, slots=True)
class Plan(PlanFields):
    """The subject and method of a comparison.

    Attributes:
        recipe: the recipe's file.
        overrides: overrides of the recipe: a plan's `set`, then `--set`.
        vary: the values of each path.
        cells: additional cells, as named patches.
        seeds: number of training seeds for each cell; None adds seeds until all is decided.
        vary_seed: randomness that seeds vary, some of `init`, `data`, `dropout`; the rest is fixed.
        tune: the values of each path that every cell tries.
        executor: the component that runs the trials, as in a recipe.
        folder: the folder of the plan's file; relative paths may start there.
    """

    recipe: Path
    overrides: tuple[str | Setting, ...] = ()
    vary: Mapping[str, Values] = field(default_factory=dict)
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: int | None = 3
    vary_seed: tuple[Randomness, ...] = VARIED
    tune: Mapping[str, Values] = field(default_factory=dict)
    executor: Any = "local"
    folder: Path | None = None

    @property
    def looks(self) -> int:
        """Number of looks at the table: one, or one after each added seed."""
        return 1 if self.seeds is not None else looks_of(self.max_seeds)

    def to_dict(self) -> dict[str, Any]:
        """The plan as its YAML would write it."""
        written: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "folder":
                continue  # where it was read from decides nothing
            if item.name in ("vary", "tune"):
                value = {
                    path: {"low": v.low, "high": v.high} if isinstance(v, Range) else list(v)
                    for path, v in value.items()
                }
            elif item.name == "overrides":
                value = [str(override) for override in value]
            elif isinstance(value, Path):
                value = str(value)
            elif isinstance(value, tuple):
                value = list(value)
            written[item.name] = value
        return written


def named_by(recipe: Path, content: Mapping[str, Any]) -> str:
    """`NAME-HASH`: a folder's name for the plan of a recipe with this content."""
    decides = {name: value for name, value in content.items() if name != "campaign"}
    text = json.dumps(decides, sort_keys=True, default=str)
    return f"{recipe.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
