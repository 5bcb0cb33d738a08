"""Turn a located tree into a `Recipe`: read every section, collect every problem."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from strawberry.errors import Problem, RecipeError
from strawberry.plugin.kinds import ComponentKind, Place
from strawberry.recipe.components import ComponentReader, place_of
from strawberry.recipe.fields import ModelFields, RecurFields, TrainFields
from strawberry.recipe.grammar import FILE_KEYS, RECUR, entry_keys, misstep, recipe_keys
from strawberry.recipe.spec import (
    BlockSpec,
    ComponentSpec,
    ModelSpec,
    NodeSpec,
    OptimizerSpec,
    Recipe,
    RecurSpec,
    RepeatSpec,
    Section,
    TrainSpec,
)
from strawberry.recipe.tree import Node, in_order, located, parse_path, show, unknown_keys
from strawberry.recipe.walk import walk_stack

if TYPE_CHECKING:
    from strawberry.plugin import Plugins

NAME = re.compile(r"[^./\\][^/\\]{0,99}")
MAX_COUNT = 10_000
MAX_BLOCKS = 10_000
MAX_USES = 100_000
MAX_PROBLEMS = 50


def validate(tree: Node, source: Path, plugins: Plugins, notes: Iterable[str] = ()) -> Recipe:
    """The recipe of a tree; raises RecipeError with all of its problems."""
    reader = _Reader(plugins)
    recipe = reader.recipe(tree, source, list(notes))
    if recipe is None or reader.problems:
        problems = in_order(reader.problems)
        more = len(problems) - MAX_PROBLEMS
        if more > 0:
            problems[MAX_PROBLEMS:] = [Problem(f"and {more} more problems", tree.location)]
        raise RecipeError(problems)
    return recipe


class _Reader(ComponentReader):
    def recipe(self, tree: Node, source: Path, notes: list[str]) -> Recipe | None:
        """All sections."""
        if not tree.is_map:
            self.say("a recipe must be a mapping with a `model:` section", tree.location, "")
            return None
        self.problems += unknown_keys(tree, {*recipe_keys(self.kinds), *FILE_KEYS}, "a recipe", "")
        for key in FILE_KEYS:
            if key in tree.value:
                self.say("is allowed in a file, not in an override", tree.keys[key], key)
        model = tree.get("model")
        if model is None:
            self.say("`model:` is missing", tree.location, "")
        spec = None if model is None else self.model(model)
        components = self.sections(tree)
        train = self.train(tree)
        requires = self.requirements(tree)
        scale = self.scale(tree)
        seed = self.seed(tree, notes)
        name = self.name(tree, source.stem)
        if self.problems or spec is None or train is None:
            return None
        return Recipe(
            name=name,
            seed=seed,
            model=spec,
            components=components,
            train=train,
            requires=requires,
            scale=scale,
            source=source,
            notes=tuple(notes),
            plugins=self.plugins,
            tree=tree,
        )

    # Sections

    def sections(self, tree: Node) -> dict[str, Section]:
        """The components of the sections, by key, in the order of their kinds."""
        standing = self.standing(tree, "", "recipe")
        sections: dict[str, Section] = {}
        for kind in self.kinds.at("recipe"):
            if kind.selects:
                sections[kind.key] = tuple(self.optimizers(kind, tree))
            elif kind.many != "one":
                sections[kind.key] = tuple(self.listed(kind, tree))
            elif kind.key in standing:
                sections[kind.key] = standing[kind.key]
        return sections

    def listed(self, kind: ComponentKind, tree: Node) -> Iterator[ComponentSpec]:
        """A list of components, or a single one where the kind allows it."""
        node = tree.get(kind.key)
        if kind.many == "either" and node is not None and not node.is_list and node.value:
            tree = Node({kind.key: Node([node], node.location)}, tree.location)
        for index, item in enumerate(self.items(tree, kind.key)):
            spec = self.component(kind.name, item, f"{kind.key}[{index}]")
            if spec is not None:
                yield spec

    def model(self, node: Node) -> ModelSpec | None:
        """The model section."""
        if not self.is_map(node, "model"):
            return None
        parts = (*self.kinds.keys("model"), "stack")
        fields = self.fields(ModelFields, node, "model", "the model", others=parts)
        components = self.standing(node, "model", "model")
        stack = node.get("stack")
        if stack is None:
            self.say("`stack:` is missing", node.location, "model")
        nodes = () if stack is None else self.stack(stack, "model.stack")
        self.bound(nodes)
        if fields is None:
            return None
        return ModelSpec(**fields, components=components, stack=nodes, at=place_of(node, "model"))

    def train(self, tree: Node) -> TrainSpec | None:
        """The train section."""
        node = tree.get("train")
        if node is None or node.value is None:
            node = Node({}, tree.location)
        if not self.is_map(node, "train"):
            return None
        fields = self.fields(TrainFields, node, "train", "train")
        if fields is None:
            return None
        train = TrainSpec(**fields, at=place_of(node, "train"))
        floor, peak = train.min_lr, train.learning_rate
        if floor is not None and floor > peak:
            message = (
                f"{floor:g} exceeds the peak, train.learning_rate {peak:g}; write at most that, "
                "or null for a tenth of it"
            )
            self.problems.append(train.at.problem("min_lr", message))
        return train

    def optimizers(self, kind: ComponentKind, tree: Node) -> list[OptimizerSpec]:
        """One optimizer, or several with selectors."""
        node = tree.get(kind.key) or located(None, tree.location)
        if not node.is_list:
            return self.optimizer(kind, node, tree, kind.key)
        if not node.value:
            self.say(f"no {kind.name} is given", node.location, kind.key)
        return [
            spec
            for index, item in enumerate(node.value)
            for spec in self.optimizer(kind, item, item, f"{kind.key}[{index}]")
        ]

    def optimizer(
        self, kind: ComponentKind, node: Node, parent: Node, path: str
    ) -> list[OptimizerSpec]:
        """An optimizer and its selector, or nothing."""
        params = node.get("params")
        rest = node
        if params is not None:
            if not isinstance(params.value, str):
                self.say("expected a kind or a pattern", params.location, f"{path}.params")
            children = {key: child for key, child in node.value.items() if key != "params"}
            rest = dataclasses.replace(node, value=children)
        spec = self.section(kind, rest, parent, path)
        if spec is None:
            return []
        if params is None:
            return [OptimizerSpec(spec)]
        return [OptimizerSpec(dataclasses.replace(spec, at=place_of(node, path)), params.value)]

    # The stack

    def stack(self, node: Node, path: str) -> tuple[NodeSpec, ...]:
        """The entries of a stack."""
        if not node.is_list or not node.value:
            self.say("a stack must be a list of at least one block", node.location, path)
            return ()
        nodes = [self.entry(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        return tuple(entry for entry in nodes if entry is not None)

    def entry(self, node: Node, path: str) -> NodeSpec | None:
        """A block, or a repeat or recur of a stack or a single block."""
        if not self.is_map(node, path, "a stack's entry"):
            return None
        self.problems += unknown_keys(node, entry_keys(self.kinds), "a stack's entry", path)
        at = place_of(node, path)
        if "repeat" in node.value and "recur" in node.value:
            self.problems.append(
                at.problem(
                    "recur", "`repeat` and `recur` exclude each other; nest one in the other"
                )
            )
            return None
        word = next((w for w in ("repeat", "recur") if w in node.value), None)
        for key in (*self.kinds.keys("recur"), *RECUR) if word != "recur" else ():
            if key in node.value:
                self.problems.append(at.problem(key, "needs a `recur`; nothing recurs here"))
        count = 1 if word is None else self.count(node, word, path)
        if "stack" in node.value:
            if word is None:
                word = "repeat"  # a group, for the weight source that it opens
            for part in self.kinds.keys("block"):
                if part in node.value:
                    message = f"`{part}` belongs in a block of the inner `stack`"
                    self.problems.append(at.problem(part, message))
            inner = self.stack(node.value["stack"], f"{path}.stack")
        elif word is None:
            return self.block(node, path, "block", "entry")
        else:
            inner = (self.block(node, path, "block"),)
        if word == "repeat":
            return RepeatSpec(count, inner, self.standing(node, path, "entry"), at)
        return self.recur(node, path, count, inner)

    def recur(
        self, node: Node, path: str, count: int, inner: tuple[NodeSpec, ...]
    ) -> RecurSpec | None:
        """A recursion: its plain fields and its components."""
        rest = entry_keys(self.kinds) - set(RECUR)
        fields = self.fields(RecurFields, node, path, "a recur", others=rest)
        components = self.standing(node, path, "entry", "recur")
        if fields is None:
            return None
        return RecurSpec(
            **fields, count=count, stack=inner, components=components, at=place_of(node, path)
        )

    def block(self, node: Node, path: str, *places: Place) -> BlockSpec:
        """The parts of a block; `none` or null leaves a part out."""
        parts = [kind.key for kind in self.kinds.at("block") if kind.is_part]
        if not any(part in node.value for part in (*parts, "block")):
            wanted = " or ".join(f"`{part}:`" for part in parts)
            self.say(f"a block needs {wanted}", node.location, path)
        return BlockSpec(self.standing(node, path, *places), place_of(node, path))

    def count(self, node: Node, word: str, path: str) -> int:
        """The count of a repeat or recur: 1 to 10,000."""
        value = node.value[word].value
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
            message = f"expected a whole number from 1 to {MAX_COUNT}, got {show(node.value[word])}"
            self.say(message, node.value[word].location, f"{path}.{word}")
            return 1
        return value

    def bound(self, nodes: Sequence[NodeSpec]) -> None:
        """Reject stacks, nested to any depth, with too many blocks to build."""
        for node in nodes:
            every = [step for step in walk_stack([node]) if isinstance(step.spec, BlockSpec)]
            blocks, uses = sum(step.copies for step in every), sum(step.uses for step in every)
            if blocks > MAX_BLOCKS or uses > MAX_USES:
                message = f"makes {blocks} blocks with {uses} uses; the limits are {MAX_BLOCKS} "
                self.problems.append(node.at.problem("", f"{message}blocks and {MAX_USES} uses"))

    # Small things

    def is_map(self, node: Node, path: str, what: str = "a section") -> bool:
        """Return whether a node is a mapping; if not, record a problem."""
        if not node.is_map:
            self.say(f"{what} must be a mapping, got {show(node)}", node.location, path)
        return node.is_map

    def items(self, tree: Node, key: str) -> list[Node]:
        """A list under `key`, or an empty one."""
        node = tree.get(key)
        if node is None or node.value is None:
            return []
        if not node.is_list:
            self.say(f"expected a list, got {show(node)}", node.location, key)
            return []
        return list(node.value)

    def name(self, tree: Node, default: str) -> str:
        """The recipe's name, which is also a folder name."""
        node = tree.get("name")
        if node is None or node.value is None:
            return default
        text = node.value
        if not isinstance(text, str) or not NAME.fullmatch(text) or not text.isprintable():
            message = (
                f"expected a name of at most 100 characters, without / or \\, got {show(node)}"
            )
            self.say(message, node.location, "name")
        return str(text)

    def seed(self, tree: Node, notes: list[str]) -> int:
        """An integer; `auto` draws one now."""
        node = tree.get("seed")
        if node is None or node.value is None:
            return 1337
        if node.value == "auto":
            drawn = secrets.randbelow(2**31)
            notes.append(f"seed: auto drew {drawn}")
            return drawn
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            message = f"expected a whole number of at least 0, or auto, got {show(node)}"
            self.say(message, node.location, "seed")
            return 0
        return value

    def scale(self, tree: Node) -> dict[str, float]:
        """How the recipe grows: by path, a power from 0 to 4."""
        node = tree.get("scale")
        if node is None or node.value is None or not self.is_map(node, "scale"):
            return {}
        powers = {}
        for path, item in node.value.items():
            value = item.value
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= 4:
                message = f"expected a power of the width from 0 to 4, got {show(item)}"
                self.say(message, item.location, f"scale.{path}")
                continue
            try:
                if message := misstep(parse_path(path, node.keys[path]), self.kinds):
                    self.say(message, node.keys[path], f"scale.{path}")
            except RecipeError as error:
                self.problems += error.problems
            powers[path] = float(value)
        return powers

    def requirements(self, tree: Node) -> tuple[str, ...]:
        """Distributions that have to be installed."""
        from importlib.metadata import PackageNotFoundError, version

        from packaging.requirements import InvalidRequirement, Requirement

        texts = []
        for index, node in enumerate(self.items(tree, "requires")):
            problem = None
            try:
                wanted = Requirement(node.value if isinstance(node.value, str) else "")
                have = version(wanted.name)
                if not wanted.specifier.contains(have, prereleases=True):
                    problem = f"needs {wanted}; {have} is installed"
            except InvalidRequirement:
                problem = f"expected a requirement such as strawberry-silia>=0.1, got {show(node)}"
            except PackageNotFoundError:
                problem = f"{wanted.name} is not installed: pip install '{wanted}'"
            if problem is not None:
                self.say(problem, node.location, f"requires[{index}]")
            texts.append(str(node.value))
        return tuple(texts)
