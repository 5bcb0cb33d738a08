"""The plan of an ablation: what is compared with what, and how; from options or from a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from strawberry.ablate.noise import RATIO
from strawberry.ablate.seeds import VARIED, read_varied
from strawberry.errors import Problem, RecipeError, StrawberryError
from strawberry.recipe.seeds import Randomness
from strawberry.recipe.spec import ModelFields, TrainFields
from strawberry.recipe.tree import Node
from strawberry.recipe.yaml import parse, read_tree

Mode: TypeAlias = Literal["grid", "one_at_a_time", "leave_one_out", "paired", "random"]
Quantity: TypeAlias = Literal["none", "params", "active_params", "flops", "time"]
BLOCK_PARTS = ("attention", "ffn")
MODEL_PARTS = ("norm", "positional", "weights")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; on a logarithmic scale if that spans a factor of ten."""

    low: float
    high: float

    @property
    def log(self) -> bool:
        """Whether they are drawn on a logarithmic scale."""
        return self.low > 0 and self.high / self.low >= 10

    @property
    def whole(self) -> bool:
        """Whether they are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Values: TypeAlias = tuple[Any, ...] | Range


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be compared, and how.

    Attributes:
        recipe: the recipe's file.
        overrides: applied to it before anything else (`--set`).
        vary: the values of each path.
        mode: `grid` all combinations; `one_at_a_time` the recipe, and each value by itself;
            `leave_one_out` the recipe, and it without each part; `paired` the first values
            together, then the second ones; `random` draws `samples` of them, ranges too.
        cells: named patches of one's own, beside those.
        samples: how many are drawn in `random`.
        seeds: training seeds a cell; None adds them until all is decided.
        vary_seed: what they vary, some of `init`, `data`, `dropout`; the rest is held.
        max_seeds: the most, if they are added.
        match: what the cells are made to agree in.
        width: the path that is resized for that; None finds one.
        tune: the values of each path that every cell tries.
        tune_seeds: seeds of each of those trials.
        tune_trials: how many are drawn where a path to tune has a range.
        tokens: training tokens of each trial; None leaves `train.max_iters`.
        flops: training FLOPs of each trial, as an alternative.
        halving: share of the steps after which the worse half of the cells ends, in rungs.
        metric: what cells are compared by; lower is better, unless it is an accuracy.
        last: of how many of a run's last evaluations the metric is the mean.
        effect: the least difference that matters, as a share of the baseline's value.
        alpha: the rate of false findings over the whole table.
        noise_ratio: the largest ratio of two cells' noises for which that rate is kept.
        causal: leave out cells that see later tokens.
        executor: the component that runs the trials, as a recipe would write it.
        folder: that of the plan's own file, from which its relative paths may start.
    """

    recipe: Path
    overrides: tuple[str, ...] = ()
    vary: Mapping[str, Values] = field(default_factory=dict)
    mode: Mode = "grid"
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: int = 10
    seeds: int | None = 3
    vary_seed: tuple[Randomness, ...] = VARIED
    max_seeds: int = 10
    match: Quantity = "none"
    width: str | None = None
    tune: Mapping[str, Values] = field(default_factory=dict)
    tune_seeds: int = 1
    tune_trials: int = 6
    tokens: int | None = None
    flops: float | None = None
    halving: bool = False
    metric: str = "val_loss"
    last: int = 1
    effect: float = 0.01
    alpha: float = 0.05
    noise_ratio: float = RATIO
    causal: bool = False
    executor: Any = "local"
    folder: Path | None = None

    @property
    def looks(self) -> int:
        """How often the table may be looked at: once, or after each seed that is added."""
        return 1 if self.seeds is not None else self.max_seeds - 2

    def to_dict(self) -> dict[str, Any]:
        """As a plan's YAML would write it."""
        found: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "folder":
                continue  # where it was read from decides nothing
            if item.name in ("vary", "tune"):
                value = {
                    path: {"low": v.low, "high": v.high} if isinstance(v, Range) else list(v)
                    for path, v in value.items()
                }
            elif isinstance(value, Path):
                value = str(value)
            elif isinstance(value, tuple):
                value = list(value)
            found[item.name] = value
        return found


def read_plan(path: Path) -> tuple[dict[str, Any], Node]:
    """The fields of a plan's YAML (`ablate: RECIPE` and what `Plan` has), and its tree.

    Raises RecipeError, located.
    """
    tree = read_tree(path)
    known = {item.name for item in fields(Plan)} - {"recipe", "overrides", "folder"}
    known |= {"ablate", "set", "suite"}
    problems = []
    for key in tree.value:
        if key not in known:
            message = f"a plan has no {key!r}; known: {', '.join(sorted(known))}"
            problems.append(Problem(message, tree.keys.get(key), key))
    if problems:
        raise RecipeError(problems)
    return tree.plain(), tree


def is_plan(path: Path) -> bool:
    """Whether a file is a plan and not a recipe."""
    return path.is_file() and path.suffix in (".yaml", ".yml") and "ablate" in read_tree(path).value


def make_plan(path: Path, options: Mapping[str, Any], table: str | None = None) -> Plan:
    """The plan of a recipe or of a plan's file, with the command line's options over it.

    Args:
        path: the recipe, or the plan.
        options: fields of the plan; what is None is not given.
        table: which of the plan's `suite` it is, if that has tables.

    Raises:
        RecipeError: the file is wrong, located.
        StrawberryError: that is no plan.
    """
    given: dict[str, Any] = {}
    recipe = path
    if is_plan(path):
        given, tree = read_plan(path)
        named = given.pop("ablate")
        recipe = path.parent / str(named)
        given["folder"] = path.absolute().parent
        if not recipe.is_file():
            place = tree.value["ablate"].location
            raise RecipeError([Problem(f"there is no file {str(recipe)!r}", place, "ablate")])
        settings = given.pop("set", None) or {}
        settings |= (given.pop("suite", None) or {}).get(table) or {}
        given["overrides"] = tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())
        if "vary_seed" in given:
            place = tree.value["vary_seed"].location
            given["vary_seed"] = read_varied(given["vary_seed"], place)
        for name in ("vary", "tune"):
            entries = given.get(name) or {}
            given[name] = {full_path(k): _values(v) for k, v in entries.items()}
        given["cells"] = given.get("cells") or {}
    for name, value in options.items():
        if name in ("vary", "tune"):
            given[name] = {**given.get(name, {}), **value}
        elif name == "overrides":
            given[name] = (*given.get(name, ()), *value)
        elif name == "vary_seed" and value is not None:
            given[name] = read_varied(value)
        elif value is not None:
            given[name] = value
    if given.get("seeds") == "auto":
        given["seeds"] = None
    plan = Plan(recipe, **given)
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    """Raises StrawberryError for what is not a plan."""
    for name, known in (("mode", get_args(Mode)), ("match", get_args(Quantity))):
        if getattr(plan, name) not in known:
            message = f"{name}: expected one of {', '.join(known)}, got {getattr(plan, name)!r}"
            raise StrawberryError(message)
    for name, least in (("seeds", 1), ("max_seeds", 3), ("samples", 1), ("tune_seeds", 1),
                        ("tune_trials", 1), ("tokens", 1), ("last", 1)):  # fmt: skip
        value = getattr(plan, name)
        if value is not None and (not isinstance(value, int) or value < least):
            raise StrawberryError(f"{name}: expected a whole number of {least} or more: {value!r}")
    if plan.tokens is not None and plan.flops is not None:
        raise StrawberryError("give a budget of tokens or of flops, not of both")
    if not (_is_number(plan.alpha) and 0 < plan.alpha < 1):
        raise StrawberryError(f"alpha: expected a share between 0 and 1, got {plan.alpha!r}")
    for name, what in (("effect", "a share"), ("flops", "a number")):
        value = getattr(plan, name)
        if value is not None and not (_is_number(value) and 0 < value < math.inf):
            raise StrawberryError(f"{name}: expected {what} above 0, got {value!r}")
    if not (_is_number(plan.noise_ratio) and 1 <= plan.noise_ratio <= 100):
        message = f"noise_ratio: expected a ratio from 1 to 100, got {plan.noise_ratio!r}"
        raise StrawberryError(message)
    ranges = [path for path, values in plan.vary.items() if isinstance(values, Range)]
    if ranges and plan.mode != "random":
        raise StrawberryError(f"{ranges[0]}: a range is for --mode random, or for --tune")
    if not plan.vary and not plan.cells and plan.mode != "leave_one_out":
        raise StrawberryError(
            "nothing varies: give --vary PATH=VALUE,VALUE or --mode leave_one_out"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def parse_axis(text: str) -> tuple[str, Values]:
    """`--vary PATH=VALUE,VALUE`, or `PATH=LOW..HIGH`; values are YAML.

    Raises StrawberryError, or RecipeError for what is not YAML.
    """
    path, equals, rest = text.partition("=")
    if not equals or not path or not rest.strip():
        raise StrawberryError(f"{text!r}: expected PATH=VALUE,VALUE or PATH=LOW..HIGH")
    if (found := re.fullmatch(r"\s*([^\s,{\[]+?)\.\.([^\s,]+)\s*", rest)) is not None:
        ends = [parse(end, text).plain() for end in found.groups()]
        return full_path(path), _range(path, *map(_number, ends))
    return full_path(path), tuple(parse(f"[{rest}]", text).plain())


def _values(value: Any) -> Values:
    """The values that a plan's YAML gives a path."""
    if isinstance(value, dict) and value.keys() == {"low", "high"}:
        return _range("", _number(value["low"]), _number(value["high"]))
    return tuple(value) if isinstance(value, list) else (value,)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _range(path: str, low: Any, high: Any) -> Range:
    if not all(isinstance(end, (int, float)) for end in (low, high)) or not low < high:
        raise StrawberryError(f"{path}: a range is two numbers, the smaller first: {low}..{high}")
    return Range(low, high)


def full_path(path: str) -> str:
    """A short name's path in a recipe: `ffn` is `model.stack.*.ffn`, `n_embd` `model.n_embd`."""
    head, dot, rest = path.partition(".")
    if head in BLOCK_PARTS:
        return f"model.stack.*.{head}{dot}{rest}"
    if head in MODEL_PARTS or path in {item.name for item in fields(ModelFields)}:
        return f"model.{path}"
    if path in {item.name for item in fields(TrainFields)}:
        return f"train.{path}"
    return path
