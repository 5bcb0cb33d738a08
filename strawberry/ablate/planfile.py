"""Read a plan from a file and the command line, by the rules of recipes.

All errors are located and reported together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from strawberry.ablate.axes import full_path, is_range
from strawberry.ablate.plan import Plan, PlanFields, Range, Values
from strawberry.ablate.seeds import read_varied
from strawberry.errors import Location, RecipeError, StrawberryError
from strawberry.plugin import Plugins
from strawberry.recipe.components import ComponentReader
from strawberry.recipe.grammar import kind_at, misstep
from strawberry.recipe.load import Setting
from strawberry.recipe.packaged import by_name, locate
from strawberry.recipe.tree import Node, in_order, located, parse_path, show
from strawberry.recipe.yaml import read_tree

MARKS = ("ablate", "vary", "tune", "cells", "suite")
"""Keys that identify a file as a plan: no recipe has them."""
HANDED = ("vary", "tune", "overrides")
"""Options that add to a plan's fields instead of replacing them."""
OWN = ("ablate", "set", "suite", "vary", "tune", "cells", "seeds", "vary_seed", "executor")
EVERY = "all"
"""The value of a component's axis that stands for every registered component of the kind."""


@dataclass(frozen=True, slots=True)
class PlanFile:
    """The contents of a plan's file, with the options applied.

    Attributes:
        plan: the plan, without the settings of a suite's tables.
        settings: the plan's `set`, by path.
        tables: further settings of each table of the plan's `suite`, by its name.
        options: overrides of the command line, applied last.
    """

    plan: Plan
    settings: Mapping[str, Node] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Node]] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def table(self, name: str | None) -> Plan:
        """The plan of a table, or the whole plan if it has no tables."""
        settings = {**self.settings, **(self.tables.get(name, {}) if name is not None else {})}
        own = (Setting(path, value) for path, value in settings.items())
        return replace(self.plan, overrides=(*own, *self.options))


def is_plan(path: Path) -> bool:
    """Return whether a file is a plan rather than a recipe."""
    if not path.is_file() or path.suffix not in (".yaml", ".yml"):
        return False
    tree = read_tree(path)
    return tree.is_map and any(mark in tree.value for mark in MARKS)


def make_plan(
    path: Path,
    options: Mapping[str, Any],
    table: str | None = None,
    plugins: Plugins | None = None,
) -> Plan:
    """Read the plan of a recipe or of a plan's file, with the command line's options.

    Args:
        path: of the recipe or the plan; or the name of a packaged one.
        options: fields of the plan; None means not given.
        table: name of the table, if the plan's `suite` has tables.
        plugins: resolve names; None loads the plugins of this environment.

    Raises:
        RecipeError: the file or an option is wrong; contains every problem, located.
        StrawberryError: the file is not a plan.
    """
    return read_plan(path, options, plugins).table(table)


def read_plan(path: Path, options: Mapping[str, Any], plugins: Plugins | None = None) -> PlanFile:
    """Read a plan's file with the options applied; see `make_plan`."""
    plugins = plugins or Plugins.load()
    path = locate(path, plugins)
    if is_plan(path):
        tree, folder = read_tree(path), path.absolute().parent
    else:
        tree, folder = Node({"ablate": Node(path.name, _start(path))}, _start(path)), None
    over = {
        name: located(value, Location(f"--{name.replace('_', '-')} {value}", 1, 1))
        for name, value in options.items()
        if name not in HANDED and value is not None
    }
    return read_plan_tree(Node({**tree.value, **over}, tree.location, tree.keys),
                          path.parent, folder, options, plugins)  # fmt: skip


def read_plan_tree(
    tree: Node,
    beside: Path,
    folder: Path | None,
    options: Mapping[str, Any],
    plugins: Plugins | None = None,
    *,
    alone: bool = False,
) -> PlanFile:
    """What a plan's tree says; see `make_plan`.

    Args:
        tree: the plan, with what options set over it.
        beside: the folder from which the recipe's path starts.
        folder: that of the plan's file, if it has one.
        options: those that come as fields of a plan.
        plugins: what names are resolved with.
        alone: whether a recipe that is compared with nothing is a plan.
    """
    reader = _PlanReader(plugins or Plugins.load(), tree, alone=alone)
    plan = reader.plan(beside, folder, options)
    if reader.problems:
        raise RecipeError(in_order(reader.problems))
    return plan


def _start(path: Path) -> Location:
    return Location(str(path), 1, 1)


class _PlanReader(ComponentReader):
    """Reads the sections of a plan."""

    def __init__(self, plugins: Plugins, tree: Node, *, alone: bool) -> None:
        super().__init__(plugins)
        self.alone = alone
        self.tree = tree
        self.kinds = plugins.registry.kinds

    def plan(self, beside: Path, folder: Path | None, options: Mapping[str, Any]) -> PlanFile:
        """The whole plan; wrong fields have their defaults."""
        fields = self.fields(PlanFields, self.tree, "", "a plan", others=OWN) or {}
        given = {name: value for name, value in fields.items() if name in self.tree.value}
        if (seeds := self.tree.get("seeds")) is not None:
            given["seeds"] = self.seeds(seeds)
        if (varied := self.tree.get("vary_seed")) is not None:
            with self.gathered():
                given["vary_seed"] = read_varied(varied.plain(), varied.location)
        if (executor := self.tree.get("executor")) is not None:
            self.component("executor", executor, "executor")
            given["executor"] = executor.plain()
        for name in ("vary", "tune"):
            given[name] = {**self.axes(name), **options.get(name, {})}
        plan = Plan(self.recipe(beside), cells=self.cells(), folder=folder, **given)
        if not self.problems:
            self.agree(plan)
        overrides = tuple(options.get("overrides", ()))
        return PlanFile(plan, self.settings(self.tree, "set", "set"), self.suite(), overrides)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Collect the problems of an error."""
        try:
            yield
        except RecipeError as error:
            self.problems += error.problems

    def recipe(self, beside: Path) -> Path:
        """The plan's recipe."""
        node = self.tree.get("ablate")
        if node is None:
            self.say("`ablate:` is missing; give the path of the recipe", self.tree.location, "")
            return beside
        if not isinstance(node.value, str):
            message = f"expected the path of a recipe, relative to this plan, got {show(node)}"
            self.say(message, node.location, "ablate")
            return beside
        path = beside / node.value
        if path.is_file() or "ablate" not in self.tree.keys:
            return path
        if (named := by_name(node.value, self.plugins)) is not None:
            return named
        message = f"no such file: {str(path)!r}, nor a packaged recipe of that name"
        self.say(message, node.location, "ablate")
        return path

    def seeds(self, node: Node) -> int | None:
        """Number of seeds, or None for `auto`."""
        value = node.value
        if value is None or value == "auto":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
            message = f"expected a whole number of at least 1, or auto, got {show(node)}"
            self.say(message, node.location, "seeds")
            return None
        return value

    def mapping(self, parent: Node, key: str, path: str, what: str) -> Iterator[tuple[str, Node]]:
        """The mapping under a key; empty if missing or wrong."""
        node = parent.get(key)
        if node is None or node.value is None:
            return
        if not node.is_map:
            self.say(f"expected a mapping of {what}, got {show(node)}", node.location, path)
            return
        yield from node.value.items()

    # Paths and their values

    def steps(self, path: str, where: Location, place: str) -> list[str | int]:
        """The steps of a recipe path, reported at `place` of the plan; [] if it is invalid."""
        with self.gathered():
            steps = parse_path(path, where)
            if not (message := misstep(steps, self.kinds)):
                return steps
            self.say(message, where, place)
        return []

    def named(self, steps: list[str | int], node: Node, path: str) -> None:
        """Check that the component at a path exists and has these fields."""
        kind = kind_at(steps, self.kinds)
        fields_alone = node.is_map and "use" not in node.value
        nothing = node.value is None or node.value in ("none", EVERY)
        if kind is None or kind.many != "one" or fields_alone or nothing:
            return
        self.component(kind.name, node, path)

    def axes(self, key: str) -> dict[str, Values]:
        """The values of each path under `vary` or `tune`."""
        read: dict[str, Values] = {}
        what = "paths in the recipe, each with a list of values"
        for written, node in self.mapping(self.tree, key, key, what):
            path, full = f"{key}.{written}", full_path(written, self.kinds)
            where = self.tree.value[key].keys[written]
            if full in read:
                self.say(f"duplicate path {full}", where, path)
            read[full] = self.values(self.steps(full, where, path), node, path)
        return read

    def values(self, steps: list[str | int], node: Node, path: str) -> Values:
        """A list of values, a single value, or a range."""
        if node.is_map and {"low", "high"} & set(node.value):
            given: Any = node.plain()
            low, high = given.get("low"), given.get("high")
            if len(given) != 2 or not is_range(low, high):
                message = "a range is `low` and `high`: two numbers, the smaller one first"
                self.say(message, node.location, path)
                return ()
            return Range(low, high)
        items = node.value if node.is_list else [node]
        if not items:
            self.say("expected at least one value, got []", node.location, path)
        seen: list[Any] = []
        for index, item in enumerate(items):
            self.named(steps, item, f"{path}[{index}]" if node.is_list else path)
            plain = item.plain()
            if any(plain == other and type(plain) is type(other) for other in seen):
                self.say(f"duplicate value {show(item)}", item.location, f"{path}[{index}]")
            seen.append(plain)
        return tuple(seen)

    def cells(self) -> dict[str, dict[str, Any]]:
        """The named patches."""
        read: dict[str, dict[str, Any]] = {}
        for name, node in self.mapping(self.tree, "cells", "cells", "names, each with a patch"):
            path = f"cells.{name}"
            settings = self.settings(self.tree.value["cells"], name, path, short=True)
            read[name] = {key: value.plain() for key, value in settings.items()}
            if not node.value:
                message = f"expected the changes of the cell, got {show(node)}"
                self.say(message, node.location, path)
        return read

    def settings(
        self, parent: Node, key: str, path: str, *, short: bool = False
    ) -> dict[str, Node]:
        """A mapping from recipe paths, or their short names, to values."""
        read: dict[str, Node] = {}
        for written, value in self.mapping(parent, key, path, "paths in the recipe"):
            full = full_path(written, self.kinds) if short else written
            place = f"{path}.{written}"
            self.named(self.steps(full, parent.value[key].keys[written], place), value, place)
            read[full] = value
        return read

    def suite(self) -> dict[str, dict[str, Node]]:
        """The settings of each table."""
        node = self.tree.get("suite")
        if node is None or node.value is None:
            return {}
        if not node.is_map or not node.value:
            message = "expected a mapping from table names to recipe changes"
            self.say(message, node.location, "suite")
            return {}
        for name in node.value:
            if "/" in name or name.startswith("."):
                message = (
                    "a table's name must be a folder name, without / and without a leading dot"
                )
                self.say(message, node.keys[name], "suite")
        return {name: self.settings(node, name, f"suite.{name}") for name in node.value}

    # The whole

    def agree(self, plan: Plan) -> None:
        """Check that the sections are consistent."""
        if plan.tokens is not None and plan.flops is not None:
            self.at("flops", "give a budget in tokens or in FLOPs, not both")
        for path, values in plan.vary.items():
            if isinstance(values, Range) and plan.mode != "random":
                self.at("vary", f"{path}: a range needs --mode random or --tune")
        compared = plan.vary or plan.cells or plan.mode == "leave_one_out"
        if not compared and not self.alone:
            self.at("vary", "nothing varies: give --vary PATH=VALUE,VALUE or --mode leave_one_out")
        if plan.width is not None:
            with self.gathered():
                parse_path(plan.width, self.tree.value["width"].location)

    def at(self, key: str, message: str) -> None:
        """Report a problem at a key; without a place if only options are involved."""
        if key in self.tree.keys or "ablate" in self.tree.keys:
            self.say(message, self.tree.keys.get(key, self.tree.location), key)
        else:
            raise StrawberryError(message)
