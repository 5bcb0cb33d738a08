"""From a located tree to a `Recipe`: every name resolved, every field checked and filled in.

Nothing stops at the first mistake: problems are gathered, and a part that is wrong becomes None.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strawberry.errors import Location, Problem, RecipeError, StrawberryError
from strawberry.plugin.registry import did_you_mean
from strawberry.plugin.signature import fields_of, model_of
from strawberry.recipe.messages import explain
from strawberry.recipe.spec import (
    BlockSpec,
    ComponentSpec,
    Located,
    ModelFields,
    ModelSpec,
    NodeSpec,
    OptimizerSpec,
    Recipe,
    RecurSpec,
    RepeatSpec,
    TrainFields,
    TrainSpec,
)
from strawberry.recipe.tree import Node, as_component, located, unknown_keys

if TYPE_CHECKING:
    from strawberry.plugin import Plugins

SECTIONS = {
    "name", "seed", "requires", "model", "data", "tokenizer", "optimizer", "schedule", "train",
    "trackers",
}  # fmt: skip
BLOCK_PARTS = ("attention", "ffn", "norm", "positional")
SHARINGS = ("cycle", "sequence", "middle_cycle", "middle_sequence")
DEFAULTS = {
    "norm": "strawberry/rmsnorm",
    "positional": "strawberry/none",
    "weights": "strawberry/owned",
    "data": "strawberry/stdlib",
    "tokenizer": "strawberry/bpe",
    "optimizer": "strawberry/adamw",
    "schedule": "strawberry/trapezoid",
}


def validate(tree: Node, source: Path, plugins: Plugins, notes: Iterable[str] = ()) -> Recipe:
    """The recipe that a tree says; raises RecipeError with all of its problems."""
    reader = _Reader(plugins)
    recipe = reader.recipe(tree, source, list(notes))
    if recipe is None or reader.problems:
        order = sorted(reader.problems, key=_place)
        raise RecipeError(list(dict.fromkeys(order)))
    return recipe


def _place(problem: Problem) -> tuple[str, int, int]:
    at = problem.location
    return (at.file, at.line, at.column) if at else ("", 0, 0)


class _Reader:
    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.problems: list[Problem] = []

    def say(self, message: str, location: Location, path: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(message, location, path))

    def recipe(self, tree: Node, source: Path, notes: list[str]) -> Recipe | None:
        """All sections."""
        if not tree.is_map:
            self.say("a recipe is a mapping with a `model:` section", tree.location, "")
            return None
        self.problems += unknown_keys(tree, SECTIONS, "a recipe", "")
        model = tree.get("model")
        if model is None:
            self.say("`model:` is missing", tree.location, "")
        spec = None if model is None else self.model(model)
        data, tokenizer, schedule = (
            self.component(kind, tree.get(kind), tree, kind)
            for kind in ("data", "tokenizer", "schedule")
        )
        optimizers = self.optimizers(tree)
        train = self.train(tree)
        trackers = [
            self.component("tracker", node, tree, f"trackers[{index}]")
            for index, node in enumerate(self.items(tree, "trackers"))
        ]
        requires = self.requirements(tree)
        seed = self.seed(tree, notes)
        name = self.text(tree, "name", source.stem)
        if self.problems or not (spec and data and tokenizer and schedule and train):
            return None
        return Recipe(
            name=name,
            seed=seed,
            model=spec,
            data=data,
            tokenizer=tokenizer,
            optimizer=tuple(optimizers),
            schedule=schedule,
            train=train,
            trackers=tuple(tracker for tracker in trackers if tracker),
            requires=requires,
            source=source,
            notes=tuple(notes),
            plugins=self.plugins,
        )

    # Sections

    def model(self, node: Node) -> ModelSpec | None:
        """The model section."""
        if not self.is_map(node, "model"):
            return None
        parts = {"norm", "positional", "weights", "stack"}
        plain = {key: child for key, child in node.value.items() if key not in parts}
        fields = self.fields(ModelFields, plain, node, "model", "the model", also=parts)
        norm, positional, weights = (
            self.component(kind, node.get(kind), node, f"model.{kind}")
            for kind in ("norm", "positional", "weights")
        )
        stack = node.get("stack")
        if stack is None:
            self.say("`stack:` is missing", node.location, "model")
        nodes = () if stack is None else self.stack(stack, "model.stack")
        if fields is None or norm is None or positional is None or weights is None:
            return None
        return ModelSpec(
            **fields,
            stack=nodes,
            norm=norm,
            positional=positional,
            weights=weights,
            at=_located(node, "model"),
        )

    def train(self, tree: Node) -> TrainSpec | None:
        """The train section."""
        node = tree.get("train") or Node({}, tree.location)
        if not self.is_map(node, "train"):
            return None
        fields = self.fields(TrainFields, node.value, node, "train", "train")
        return None if fields is None else TrainSpec(**fields, at=_located(node, "train"))

    def optimizers(self, tree: Node) -> list[OptimizerSpec]:
        """One optimizer, or several with selectors."""
        node = tree.get("optimizer") or located(DEFAULTS["optimizer"], tree.location)
        items = node.value if node.is_list else [node]
        if not items:
            self.say("no optimizer is named", node.location, "optimizer")
        found = []
        for index, item in enumerate(items):
            path = f"optimizer[{index}]" if node.is_list else "optimizer"
            params = item.get("params")
            if params is not None:
                if not isinstance(params.value, str):
                    self.say("expected a kind or a pattern", params.location, f"{path}.params")
                rest = {key: child for key, child in item.value.items() if key != "params"}
                item = dataclasses.replace(item, value=rest)  # noqa: PLW2901
            spec = self.component("optimizer", item, tree, path)
            if spec is not None:
                found.append(OptimizerSpec(spec, None if params is None else params.value))
        return found

    # The stack

    def stack(self, node: Node, path: str) -> tuple[NodeSpec, ...]:
        """The entries of a stack."""
        if not node.is_list or not node.value:
            self.say("a stack is a list of at least one block", node.location, path)
            return ()
        found = [self.entry(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        return tuple(entry for entry in found if entry is not None)

    def entry(self, node: Node, path: str) -> NodeSpec | None:
        """A block, or a repeat or recur around a stack or a single block."""
        if not self.is_map(node, path, "a stack's entry"):
            return None
        known = {"repeat", "recur", "sharing", "stack", "weights", *BLOCK_PARTS}
        self.problems += unknown_keys(node, known, "a stack's entry", path)
        at = _located(node, path)
        if "repeat" in node.value and "recur" in node.value:
            self.problems.append(at.problem("recur", "write `repeat` or `recur`; nest the other"))
            return None
        word = next((w for w in ("repeat", "recur") if w in node.value), None)
        if word != "recur" and "sharing" in node.value:
            self.problems.append(at.problem("sharing", "only `recur` shares; `repeat` does not"))
        source = node.get("weights")
        weights = self.component("weights", source, node, f"{path}.weights") if source else None
        count = 1 if word is None else self.count(node, word, path)
        if "stack" in node.value:
            if word is None:
                word = "repeat"  # a group, for the weight source that it opens
            for part in BLOCK_PARTS:
                if part in node.value:
                    message = f"`{part}` belongs in a block of the inner `stack`"
                    self.problems.append(at.problem(part, message))
            inner = self.stack(node.value["stack"], f"{path}.stack")
        elif word is None:
            return self.block(node, path, weights)
        else:
            inner = (self.block(node, path, None),)
        if word == "repeat":
            return RepeatSpec(count, inner, weights, at)
        sharing = self.sharing(node, path)
        return RecurSpec(count, inner, sharing, weights, at)  # type: ignore[arg-type]

    def block(self, node: Node, path: str, weights: ComponentSpec | None) -> BlockSpec:
        """The parts of a block; `none` or nothing leaves a part out."""
        parts: dict[str, ComponentSpec | None] = {}
        for kind in BLOCK_PARTS:
            child = node.get(kind)
            absent = child is None or child.value is None
            if kind in ("attention", "ffn") and child is not None and child.value == "none":
                absent = True
            parts[kind] = (
                None if absent else self.component(kind, child, node, f"{path}.{kind}")
            )
        if "attention" not in node.value and "ffn" not in node.value:
            self.say("a block needs `attention:` or `ffn:`", node.location, path)
        return BlockSpec(**parts, weights=weights, at=_located(node, path))

    def count(self, node: Node, word: str, path: str) -> int:
        """How often to repeat or recur: 1 to 10,000."""
        value = node.value[word].value
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000:
            message = f"expected a number of 1 to 10000, got {value!r}"
            self.say(message, node.value[word].location, f"{path}.{word}")
            return 1
        return value

    def sharing(self, node: Node, path: str) -> str:
        """The sharing pattern of a recur."""
        child = node.get("sharing")
        if child is None:
            return "cycle"
        if child.value not in SHARINGS:
            near = did_you_mean(str(child.value), SHARINGS) or f"; known: {', '.join(SHARINGS)}"
            message = f"unknown sharing {child.value!r}{near}"
            self.say(message, child.location, f"{path}.sharing")
        return str(child.value)

    # Components

    def component(
        self, kind: str, node: Node | None, parent: Node, path: str
    ) -> ComponentSpec | None:
        """A component by name, or by `use` and fields; the default of its kind if it is absent."""
        if node is None:
            node = located(DEFAULTS[kind], parent.location)
        if node.value is None and kind == "positional":
            node = located(DEFAULTS[kind], node.location)
        if not node.is_map:
            node = as_component(node)
        name = node.get("use")
        if name is None or not isinstance(name.value, str):
            where = node.location if name is None else name.location
            message = f"expected the name of a component of kind {kind}, or `use:` and its fields"
            self.say(message, where, path)
            return None
        try:
            entry = self.plugins.registry.find(kind, name.value)
            cls = entry.load()
            model_of(cls)
        except StrawberryError as error:
            self.say(str(error), name.location, path)
            return None
        written = {key: child for key, child in node.value.items() if key != "use"}
        fields = self.fields(cls, written, node, path, f"{kind} {name.value!r}")
        if fields is None:
            return None
        at = _located(node, path)
        return ComponentSpec(kind, entry.full_name, fields, frozenset(written), entry, at)

    def fields(
        self,
        cls: type,
        written: Mapping[str, Node],
        node: Node,
        path: str,
        what: str,
        also: Iterable[str] = (),
    ) -> dict[str, Any] | None:
        """The fields of a signature, checked and filled; None if any is wrong."""
        from pydantic import ValidationError

        declared = {field.name: field for field in fields_of(cls)}
        before = len(self.problems)
        known = Node(dict(written), node.location, node.keys)
        self.problems += [
            p for p in unknown_keys(known, {*declared, *also}, what, path) if p not in self.problems
        ]
        nested: dict[str, Any] = {}
        for name, field in declared.items():
            if field.kind is not None:
                child = written.get(name, located(field.default, node.location))
                nested[name] = self.nested(field.kind, child, node, f"{path}.{name}")
        plain = {
            name: child.plain()
            for name, child in written.items()
            if name in declared and name not in nested
        }
        try:
            text = json.dumps({**plain, **dict.fromkeys(nested)})
            checked = model_of(cls).model_validate_json(text)
        except ValidationError as error:
            for item in error.errors():
                where = Node(dict(written), node.location, node.keys).find(item["loc"])
                self.say(explain(item, what), where, _join(path, item["loc"]))
        if len(self.problems) > before:
            return None
        return {name: nested.get(name, getattr(checked, name)) for name in declared}

    def nested(self, kind: str, node: Node, parent: Node, path: str) -> Any:
        """A field that holds a component, a list of them, or nothing."""
        if node.value is None or node.value == "none":
            return None
        if node.is_list:
            return [
                self.component(kind, item, parent, f"{path}[{index}]")
                for index, item in enumerate(node.value)
            ]
        return self.component(kind, node, parent, path)

    # Small things

    def is_map(self, node: Node, path: str, what: str = "a section") -> bool:
        """Whether a node is a mapping; a problem if not."""
        if not node.is_map:
            self.say(f"{what} is a mapping, not {node.plain()!r}"[:160], node.location, path)
        return node.is_map

    def items(self, tree: Node, key: str) -> list[Node]:
        """A list under `key`, or nothing."""
        node = tree.get(key)
        if node is None or node.value is None:
            return []
        if not node.is_list:
            self.say("expected a list", node.location, key)
            return []
        return list(node.value)

    def text(self, tree: Node, key: str, default: str) -> str:
        """A file-name-like text under `key`."""
        node = tree.get(key)
        if node is None:
            return default
        text = str(node.value)
        if not isinstance(node.value, str) or not text or set(text) & set("/\\\0\n") or text[0] == ".":
            self.say("expected a name without / or \\, not beginning with a dot", node.location, key)
        return text

    def seed(self, tree: Node, notes: list[str]) -> int:
        """An integer, or `auto` for one that is drawn now."""
        node = tree.get("seed")
        if node is None:
            return 1337
        if node.value == "auto":
            drawn = secrets.randbelow(2**31)
            notes.append(f"seed: auto drew {drawn}")
            return drawn
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            self.say(f"expected a whole number or auto, got {value!r}", node.location, "seed")
            return 0
        return value

    def requirements(self, tree: Node) -> tuple[str, ...]:
        """Distributions that have to be installed."""
        from importlib.metadata import PackageNotFoundError, version

        from packaging.requirements import InvalidRequirement, Requirement

        texts = []
        for index, node in enumerate(self.items(tree, "requires")):
            path = f"requires[{index}]"
            try:
                wanted = Requirement(str(node.value))
                have = version(wanted.name)
                if not wanted.specifier.contains(have, prereleases=True):
                    message = f"needs {wanted}; {have} is installed"
                    self.say(message, node.location, path)
            except InvalidRequirement:
                message = f"{node.value!r} is not a requirement such as strawberry-silia>=0.1"
                self.say(message, node.location, path)
            except PackageNotFoundError:
                message = f"{wanted.name} is not installed: pip install '{wanted}'"
                self.say(message, node.location, path)
            texts.append(str(node.value))
        return tuple(texts)


def _located(node: Node, path: str) -> Located:
    places = {key: child.location for key, child in node.value.items()}
    return Located(path, node.location, places)


def _join(path: str, steps: Iterable[Any]) -> str:
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path
