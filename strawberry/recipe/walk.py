"""The one walk over a recipe: every node and component, with path and parent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from strawberry.recipe.spec import (
    BlockSpec,
    ComponentSpec,
    NodeSpec,
    OptimizerSpec,
    Recipe,
    RecurSpec,
    RepeatSpec,
)

Walkable: TypeAlias = NodeSpec | ComponentSpec


@dataclass(frozen=True, slots=True)
class Placed:
    """A node of the stack, or a component, with its position.

    Attributes:
        path: the path of an override: `model.stack[0].attention`, `data.task`.
        spec: the node or component.
        parent: its container; None for a component of a section or at the top of the stack.
    """

    path: str
    spec: Walkable
    parent: Placed | None = None

    @property
    def copies(self) -> int:
        """Number of instances in a model: the product of the enclosing repeats."""
        return self._product(RepeatSpec)

    @property
    def uses(self) -> int:
        """Number of uses in a pass, if every enclosing recursion step used it."""
        return self._product(RepeatSpec, RecurSpec)

    def _product(self, *counted: type) -> int:
        product, step = 1, self.parent
        while step is not None:
            product *= step.spec.count if isinstance(step.spec, counted) else 1  # type: ignore[union-attr]
            step = step.parent
        return product


def walk(recipe: Recipe) -> Iterator[Placed]:
    """Every node and component of a recipe, nested ones too, parents first.

    The model's components come first, then those of its stack, then those of the sections.
    """
    yield from walk_components(recipe.model.components, "model")
    yield from walk_stack(recipe.model.stack)
    yield from walk_components(recipe.components, "")


def walk_stack(
    stack: Iterable[NodeSpec], path: str = "model.stack", parent: Placed | None = None
) -> Iterator[Placed]:
    """Every node and component of a stack, parents first."""
    for index, node in enumerate(stack):
        step = Placed(node.at.path or f"{path}[{index}]", node, parent)
        yield step
        yield from walk_components(node.components, step.path, step)
        if not isinstance(node, BlockSpec):
            yield from walk_stack(node.stack, f"{step.path}.stack", step)


def walk_components(value: Any, path: str, parent: Placed | None = None) -> Iterator[Placed]:
    """Every component in a value (a component, a list or a mapping), nested ones too."""
    if isinstance(value, OptimizerSpec):
        value = value.component
    if isinstance(value, ComponentSpec):
        step = Placed(path, value, parent)
        yield step
        yield from walk_components(value.fields, path, step)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk_components(item, f"{path}.{key}".removeprefix("."), parent)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from walk_components(item, f"{path}[{index}]", parent)


def specs(recipe: Recipe, *sections: str) -> Iterator[ComponentSpec]:
    """Every component of these sections of a recipe, nested ones too."""
    for step in walk(recipe):
        if isinstance(step.spec, ComponentSpec) and re.split(r"[.\[]", step.path)[0] in sections:
            yield step.spec


def blocks(stack: Iterable[NodeSpec]) -> Iterator[BlockSpec]:
    """The blocks of a stack, at any depth."""
    return (step.spec for step in walk_stack(stack) if isinstance(step.spec, BlockSpec))
