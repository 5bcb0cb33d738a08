"""A recipe file as a tree of values with locations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from strawberry.errors import Location, Problem, RecipeError
from strawberry.plugin.words import did_you_mean

SEGMENT = re.compile(r"([A-Za-z_*][\w\-]*|\*)|\[(\d{1,6})\]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its location.

    Attributes:
        value: a scalar, a list of nodes, or a dict of nodes by key.
        location: where the value begins.
        keys: for a dict, the location of each key.
    """

    value: Any
    location: Location
    keys: dict[str, Location] = field(default_factory=dict)

    @property
    def is_map(self) -> bool:
        """True for a mapping."""
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        """True for a list."""
        return isinstance(self.value, list)

    def get(self, key: str) -> Node | None:
        """The value under `key`, or None."""
        child: Node | None = self.value.get(key) if self.is_map else None
        return child

    def plain(self) -> Any:
        """The value without locations."""
        if self.is_map:
            return {key: node.plain() for key, node in self.value.items()}
        if self.is_list:
            return [node.plain() for node in self.value]
        return self.value

    def find(self, path: tuple[Any, ...]) -> Location:
        """The location of `path`, or of its last part that exists."""
        node = self
        for step in path:
            in_list = node.is_list and isinstance(step, int) and step < len(node.value)
            if in_list or (node.is_map and step in node.value):
                node = node.value[step]
        return node.location


def show(value: Any) -> str:
    """A value in a message: one line, shortened."""
    plain = value.plain() if isinstance(value, Node) else value
    text = repr(plain)
    if plain is None or isinstance(plain, bool):
        text = "null" if plain is None else str(plain).lower()
    return text if len(text) <= 60 else f"{text[:57]}..."


def located(value: Any, location: Location) -> Node:
    """Plain data as a tree with one location; nodes inside keep theirs."""
    if isinstance(value, Node):
        return value
    if isinstance(value, dict):
        children = {key: located(item, location) for key, item in value.items()}
        return Node(children, location, {key: child.location for key, child in children.items()})
    if isinstance(value, list):
        return Node([located(item, location) for item in value], location)
    return Node(value, location)


def merge(base: Node, over: Node) -> Node:
    """`base` updated by `over`: mappings merge key by key, everything else is replaced.

    A component written as a name takes further fields (`rope` and `{base: 500000}`); a different
    `use` replaces the whole component.
    """
    if over.is_map and "use" not in over.value and isinstance(base.value, str):
        base = as_component(base)
    if not (base.is_map and over.is_map):
        return over
    if "use" in over.value and _use(base) != _use(over):
        return over
    value, keys = dict(base.value), {**base.keys, **over.keys}
    for key, node in over.value.items():
        value[key] = merge(value[key], node) if key in value else node
    return Node(value, over.location, keys)


def as_component(node: Node) -> Node:
    """A component's bare name as a mapping with `use`."""
    return Node({"use": node}, node.location, {"use": node.location})


def _use(node: Node) -> Any:
    use = node.get("use")
    return None if use is None else use.value


def parse_path(path: str, location: Location | None) -> list[str | int]:
    """`model.stack[0].attention` as a list of keys and indices; raises RecipeError."""
    steps: list[str | int] = []
    rest = path
    while rest:
        match = SEGMENT.match(rest)
        if match is None:
            raise RecipeError(
                [
                    Problem(
                        f"expected a path such as model.stack[0].attention, got {path!r}", location
                    )
                ]
            )
        steps.append(match[1] if match[1] is not None else int(match[2]))
        rest = rest[match.end() :].removeprefix(".")
    return steps


def set_at(tree: Node, steps: list[str | int], value: Node) -> Node:
    """The tree with `value` at `steps`; `*` in a stack stands for all its blocks at any depth.

    A mapping without `use` is merged into the existing value, anything else replaces it. Raises
    RecipeError if the path does not exist.
    """
    if not steps:
        return merge(tree, value) if value.is_map and "use" not in value.value else value
    step, rest = steps[0], steps[1:]
    if step == "*" or isinstance(step, int):
        return _set_in_list(tree, step, rest, value)
    if isinstance(tree.value, str) and tree.value:
        tree = as_component(tree)
    if tree.value is None:
        tree = Node({}, value.location)
    if not tree.is_map:
        what = "a list; write an index or *" if tree.is_list else f"the value {show(tree)}"
        raise RecipeError([Problem(f"nothing at {step!r}: it is {what}", value.location)])
    child = tree.value.get(step, Node(None, value.location))
    keys = tree.keys if step in tree.value else {**tree.keys, step: value.location}
    return Node({**tree.value, step: set_at(child, rest, value)}, tree.location, keys)


def _set_in_list(tree: Node, step: str | int, rest: list[str | int], value: Node) -> Node:
    if not tree.is_list:
        raise RecipeError([Problem(f"no list to index with [{step}]", value.location)])
    items: list[Node] = list(tree.value)
    if isinstance(step, int):
        if step >= len(items):
            message = f"index [{step}] is out of range: the list has {len(items)} entries"
            raise RecipeError([Problem(message, value.location)])
        items[step] = set_at(items[step], rest, value)
        return replace(tree, value=items)
    if len(rest) > 1 and not any(_in_some_block(item, rest[0]) for item in items):
        raise RecipeError([Problem(f"no block has {rest[0]!r}", value.location)])
    return replace(tree, value=[_set_in_blocks(item, rest, value) for item in items])


def _in_some_block(entry: Node, part: Any) -> bool:
    inner = entry.get("stack")
    if inner is None or not inner.is_list:
        value = entry.get(part)
        return value is not None and value.value not in (None, "none")
    return any(_in_some_block(item, part) for item in inner.value)


def _set_in_blocks(entry: Node, rest: list[str | int], value: Node) -> Node:
    """Set a value in the blocks of a stack's entry: itself, or those of its own stack.

    A part is set in every block; a field of a part only in blocks that have the part.
    """
    inner = entry.get("stack")
    if inner is None or not inner.is_list:
        if len(rest) > 1 and not _in_some_block(entry, rest[0]):
            return entry
        return set_at(entry, rest, value)
    blocks = Node([_set_in_blocks(item, rest, value) for item in inner.value], inner.location)
    return Node({**entry.value, "stack": blocks}, entry.location, entry.keys)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Unique problems, in file order."""

    def place(problem: Problem) -> tuple[str, int, int]:
        at = problem.location
        return (at.file, at.line, at.column) if at else ("", 0, 0)

    return sorted(dict.fromkeys(problems), key=place)


def unknown_keys(node: Node, known: set[str], what: str, path: str) -> Iterator[Problem]:
    """A problem for each unknown key of a mapping."""
    for key in node.value:
        if key not in known:
            near = did_you_mean(key, known)
            hint = near or f"; known: {', '.join(sorted(known)) or 'none'}"
            yield Problem(f"{what} has no {key!r}{hint}", node.keys.get(key, node.location), path)
