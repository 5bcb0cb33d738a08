"""A recipe around one component, which `strawberry check` builds and `strawberry new` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strawberry.errors import Location
from strawberry.plugin.kinds import ComponentKind
from strawberry.recipe.tree import Node, located, parse_path, set_at


def around(
    kind: ComponentKind,
    component: str | Mapping[str, Any],
    recipe: Mapping[str, Any],
    where: Location,
) -> Node:
    """The tree of a recipe in which a component has its place: a block, and one that recurs.

    Args:
        kind: the component's kind. Its other recipe settings are set too, except for sections that
            `recipe` has.
        component: its name, or a mapping with `use`.
        recipe: its sections, as plain data; `model` without a stack.
        where: the place that all values get.
    """
    block = {"attention": "mha", "ffn": "swiglu"}
    stack = [block, {"recur": 2, "stack": [block]}]
    tree = located({**recipe, "model": {**recipe["model"], "stack": stack}}, where)
    settings = {path: value for path, value in kind.around.items() if path not in recipe}
    if kind.checked_at:
        settings[kind.checked_at] = [component] if kind.many == "list" else component
    for path, value in settings.items():
        tree = set_at(tree, parse_path(path, where), located(value, where))
    return tree
