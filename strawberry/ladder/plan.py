"""The plan of a ladder: that of an ablation, and how the recipe grows from rung to rung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

from strawberry.ablate.plan import Plan, named_by
from strawberry.ablate.planfile import HANDED, PlanFile, read_plan_tree
from strawberry.errors import Location, Problem, RecipeError
from strawberry.plugin import Plugins
from strawberry.recipe.components import ComponentReader
from strawberry.recipe.packaged import locate
from strawberry.recipe.tree import Node, in_order, located
from strawberry.recipe.yaml import read_tree

MARK: Final = "ladder"
"""The key by which a file is known for a ladder's plan: it names the recipe."""
RateRule: TypeAlias = Literal["compute", "width", "constant"]
RULES: Final[Mapping[str, str]] = {
    "compute": "The peak learning rate falls as compute^-0.125 (DeepSeek LLM, arXiv 2401.02954)",
    "width": "The peak learning rate falls as 1 / width (muP's rule for matrices under Adam, "
    "arXiv 2203.03466, applied to all parameters)",
    "constant": "Every rung has the recipe's learning rate",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderFields:
    """What a ladder's plan has beside those of an ablation.

    Args:
        rungs: how many sizes there are.
        factor: how many times the parameters of the one before, embeddings aside, each has.
        tokens_per_parameter: training tokens of a rung for each of the baseline's parameters,
            embeddings aside. `tokens` or `flops`, which are those of the first rung, go before.
        cooldowns: shares of a rung's tokens, between 0 and 1, at which further runs end: they
            branch from the stable part of the rung's own runs, and cost their cooldowns alone.
        hold_out: rungs at the top that are predicted before they are trained.
        rate: how the learning rate carries over from the first rung to the others.
        tuned_rungs: rungs at the bottom in which `tune` is tried; the rest carries over from the
            last of them.
    """

    rungs: Annotated[int, Ge(2), Le(100)] = 5
    factor: Annotated[float, Gt(1), Le(1000)] = 2.0
    tokens_per_parameter: Annotated[float, Gt(0), Le(1e6)] = 20.0
    cooldowns: tuple[Annotated[float, Gt(0), Lt(1)], ...] = ()
    hold_out: Annotated[int, Ge(0), Le(97)] = 0
    rate: RateRule = "compute"
    tuned_rungs: Annotated[int, Ge(1), Le(100)] = 1


@dataclass(frozen=True, slots=True)
class LadderPlan:
    """A ladder: the plan of every rung, and how the rungs differ."""

    plan: Plan
    how: LadderFields

    def to_dict(self) -> dict[str, Any]:
        """As a plan's YAML would write it."""
        return {**self.plan.to_dict(), **asdict(self.how)}

    @property
    def folder(self) -> Path:
        """`ladders/NAME-HASH`: the same plan has the same folder."""
        return Path("ladders") / named_by(self.plan.recipe, self.to_dict())

    def tokens(self, rung: int, parameters: int) -> int | None:
        """The training tokens of a rung whose baseline has these parameters; None if FLOPs say."""
        if self.plan.flops is not None:
            return None
        if self.plan.tokens is not None:
            return round(self.plan.tokens * self.how.factor**rung)
        return round(self.how.tokens_per_parameter * parameters)

    def flops(self, rung: int) -> float | None:
        """The training FLOPs of each trial of a rung; they grow as parameters times tokens."""
        return None if self.plan.flops is None else self.plan.flops * self.how.factor ** (2 * rung)


OWN: Final = tuple(item.name for item in fields(LadderFields))
REFUSED: Final = {
    "mode": "leave_one_out, random and the like are for `strawberry ablate`",
    "halving": "every rung has all architectures",
    "suite": "a ladder has one table",
}
"""Keys of an ablation's plan that a ladder has no use for."""


def read_ladder(
    path: Path, options: Mapping[str, Any], plugins: Plugins | None = None
) -> LadderPlan:
    """The ladder of a recipe or of a plan's file, with the command line's options over it.

    Args:
        path: the recipe, or the plan (`ladder: RECIPE`); or the name of a packaged one.
        options: fields of an ablation's plan and of `LadderFields`; what is None is not given.
        plugins: what names are resolved with; None loads the plugins of this environment.

    Raises:
        RecipeError: the file or an option is wrong; with every problem, located.
    """
    plugins = plugins or Plugins.load()
    path = locate(path, plugins)
    start = Location(str(path), 1, 1)
    tree, folder = read_tree(path), path.absolute().parent
    if tree.is_map and "ablate" in tree.value and MARK not in tree.value:
        message = "this is a plan for `strawberry ablate`; a ladder's names its recipe by `ladder:`"
        raise RecipeError([Problem(message, tree.keys["ablate"], "ablate")])
    if not (tree.is_map and MARK in tree.value):
        tree, folder = Node({MARK: Node(path.name, start)}, start), None  # type: ignore[assignment]
    over = {
        name: located(value, Location(f"--{name.replace('_', '-')} {value}", 1, 1))
        for name, value in options.items()
        if name not in HANDED and value is not None
    }
    default = {"match": located("flops", start)}
    tree = Node({**default, **tree.value, **over}, tree.location, tree.keys)
    reader = _LadderReader(plugins)
    how = reader.own(tree)
    file = _rest(tree, path, folder, options, plugins, reader)
    if reader.problems or file is None or how is None:
        raise RecipeError(in_order(reader.problems))
    return LadderPlan(file.table(None), how)


def _rest(
    tree: Node,
    path: Path,
    folder: Path | None,
    options: Mapping[str, Any],
    plugins: Plugins,
    reader: _LadderReader,
) -> PlanFile | None:
    """What is an ablation's in the plan; its problems go to the reader's."""
    names = {MARK: "ablate"}
    kept = [key for key in tree.value if key not in (*OWN, *REFUSED)]
    keys = {names.get(k, k): tree.keys[k] for k in kept if k in tree.keys}
    plan = Node({names.get(k, k): tree.value[k] for k in kept}, tree.location, keys)
    given = {name: value for name, value in options.items() if name in HANDED}
    try:
        return read_plan_tree(plan, path.parent, folder, given, plugins, alone=True)
    except RecipeError as error:
        reader.problems += error.problems
        return None


class _LadderReader(ComponentReader):
    """Reads what a ladder's plan has of its own."""

    def own(self, tree: Node) -> LadderFields | None:
        """The ladder's fields."""
        for key, why in REFUSED.items():
            if key in tree.value:
                self.say(f"a ladder has no {key!r}: {why}", tree.value[key].location, key)
        if "ablate" in tree.value:
            message = "the recipe stands under `ladder:`; `ablate:` is for `strawberry ablate`"
            self.say(message, tree.keys["ablate"], "ablate")
        mine = {key: node for key, node in tree.value.items() if key in OWN}
        keys = {key: place for key, place in tree.keys.items() if key in mine}
        values = self.fields(LadderFields, Node(mine, tree.location, keys), "", "a ladder's plan")
        if values is None:
            return None
        how = LadderFields(**values)
        if how.hold_out and how.rungs - how.hold_out < 3:
            message = f"{how.rungs - how.hold_out} rungs are left to fit; a curve needs three"
            self.say(message, mine["hold_out"].location, "hold_out")
        return how
