"""Components of a recipe: resolve names, and check fields against signatures.

Reading continues after an error: problems are collected, and a wrong part becomes None.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

from strawberry.errors import Location, Problem, StrawberryError
from strawberry.plugin.conformance import check_class
from strawberry.plugin.kinds import ComponentKind, Place
from strawberry.plugin.registry import resolve
from strawberry.plugin.signature import REQUIRED, RecipeField, fields_of, model_of
from strawberry.recipe.messages import explain
from strawberry.recipe.spec import ComponentSpec, Located
from strawberry.recipe.tree import Node, as_component, located, unknown_keys

if TYPE_CHECKING:
    from strawberry.plugin import Plugins

MAX_NAME = 100


class ComponentReader:
    """Reads components, and the fields of sections, out of a tree.

    Attributes:
        problems: the problems so far.
    """

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.kinds = plugins.registry.kinds
        self.problems: list[Problem] = []

    def say(self, message: str, location: Location, path: str) -> None:
        """Record a problem."""
        self.problems.append(Problem(message, location, path))

    def standing(self, parent: Node, path: str, *places: Place) -> dict[str, ComponentSpec]:
        """The components at places that hold at most one of each kind, by key."""
        specs = {}
        for kind in self.kinds.at(*places):
            where = join(path, [kind.key])
            if kind.many != "one":
                continue
            if (
                spec := self.one(kind, parent, where, at_home=kind.places[0] in places)
            ) is not None:
                specs[kind.key] = spec
        return specs

    def one(
        self, kind: ComponentKind, parent: Node, path: str, *, at_home: bool
    ) -> ComponentSpec | None:
        """The component under a key; without the key, the default one if it has a place."""
        node = parent.get(kind.key)
        absent = node is None or node.value is None or (kind.nothing and node.value == "none")
        if at_home and kind.default is not None and not (absent and kind.nothing):
            return self.section(kind, node, parent, path)
        return None if absent or node is None else self.component(kind.name, node, path)

    def section(
        self, kind: ComponentKind, node: Node | None, parent: Node, path: str
    ) -> ComponentSpec | None:
        """A component with a default, used if the component or its `use` is missing."""
        if node is None or node.value is None:
            node = located(kind.default, parent.location)
        elif node.is_map and "use" not in node.value:
            use = located(kind.default, node.location)
            node = Node({"use": use, **node.value}, node.location, node.keys)
        return self.component(kind.name, node, path)

    def component(self, kind: str, node: Node, path: str) -> ComponentSpec | None:
        """A component by name, or by `use` and fields."""
        if not node.is_map:
            node = as_component(node)
        name = node.get("use")
        if name is None or not isinstance(name.value, str) or len(name.value) > MAX_NAME:
            where = node.location if name is None else name.location
            message = f"expected a component name of kind {kind}, or `use:` and its fields"
            self.say(message, where, path)
            return None
        try:
            entry = self.plugins.registry.find(kind, name.value)
            cls = entry.load()
            row = self.kinds[kind]
            if row not in self.kinds.brought:  # what one of those is, its plugin says
                check_class(cls, cast("type", resolve(row.contract, f"kind {kind!r}")))
            model_of(cls)
        except StrawberryError as error:
            self.say(str(error), name.location, path)
            return None
        written = {key: child for key, child in node.value.items() if key != "use"}
        rest = Node(written, node.location, node.keys)
        fields = self.fields(cls, rest, path, f"{kind} {name.value!r}")
        if fields is None:
            return None
        return ComponentSpec(
            kind, entry.full_name, fields, frozenset(written), entry, place_of(node, path)
        )

    def fields(
        self, cls: type, node: Node, path: str, what: str, others: Iterable[str] = ()
    ) -> dict[str, Any] | None:
        """The checked fields of a signature, with defaults; None if any is wrong.

        Args:
            cls: the class with the signature.
            node: the mapping of fields.
            path: its path in the recipe.
            what: its name in messages.
            others: keys of the mapping that another reader handles.
        """
        from pydantic import ValidationError

        declared = {field.name: field for field in fields_of(cls)}
        before = len(self.problems)
        self.problems += unknown_keys(node, {*declared, *others}, what, path)
        nested = {
            name: self._nested(field, node.get(name), node, f"{path}.{name}")
            for name, field in declared.items()
            if field.kind is not None
        }
        data = {
            name: child.plain()
            for name, child in node.value.items()
            if name in declared and name not in nested
        }
        try:
            # The model takes anything for a component, but knows where a list of them must be.
            data |= {n: _hole(declared[n], node.get(n), value) for n, value in nested.items()}
            checked = model_of(cls).model_validate_json(json.dumps(data))
        except ValidationError as error:
            for steps, message in explain(error.errors(), data, what).items():
                self.say(message, node.find(steps), join(path, steps))
        if len(self.problems) > before:
            return None
        return {
            name: _sequence(nested[name], field) if name in nested else getattr(checked, name)
            for name, field in declared.items()
        }

    def _nested(self, field: RecipeField, node: Node | None, parent: Node, path: str) -> Any:
        """A field that holds a component, a list of them, or nothing."""
        kind = str(field.kind)
        if node is None:
            node = located(field.default, parent.location)
        many = _mentions(field.annotation, (list, tuple))
        absent = node.value is None or (node.value == "none" and not self._is_name(kind, "none"))
        if node.value is REQUIRED:
            self.say(f"missing a component of kind {kind}", node.location, path)
        elif many and isinstance(node.value, (list, tuple)):
            items = [located(item, node.location) for item in node.value]
            return [self.component(kind, item, f"{path}[{i}]") for i, item in enumerate(items)]
        elif absent and not many and not _mentions(field.annotation, (type(None),)):
            self.say(f"expected a component of kind {kind}, got none", node.location, path)
        elif not absent and not many:
            return self.component(kind, node, path)
        return None

    def _is_name(self, kind: str, name: str) -> bool:
        return any(entry.name == name for entry in self.plugins.registry.entries(kind))


def place_of(node: Node, path: str) -> Located:
    """The location of a mapping and of its values."""
    return Located(path, node.location, {key: n.location for key, n in node.value.items()})


def join(path: str, steps: Iterable[Any]) -> str:
    """A path with further steps: `train`, (`betas`, 0) -> `train.betas[0]`."""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")


def _hole(field: RecipeField, written: Node | None, value: Any) -> Any:
    """Placeholder for a component in the pydantic model."""
    if written is not None and written.value != "none":
        return written.plain()
    if isinstance(value, list):
        return [0] * len(value)
    return None if _mentions(field.annotation, (type(None),)) else 0


def _mentions(annotation: Any, types: tuple[type, ...]) -> bool:
    """Return whether one of these types occurs in an annotation."""
    if annotation in types or get_origin(annotation) in types:
        return True
    return any(_mentions(argument, types) for argument in get_args(annotation))


def _sequence(value: Any, field: RecipeField) -> Any:
    is_tuple = isinstance(value, list) and _mentions(field.annotation, (tuple,))
    return tuple(value) if is_tuple else value
