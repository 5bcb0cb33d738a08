"""The one walk over a recipe: what stands where, and inside of what."""

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
    """A node of the stack, or a component, where it stands.

    Attributes:
        path: as in an override: `model.stack[0].attention`, `data.task`.
        spec: what stands there.
        parent: what it stands in; None for what stands in a section or at the top of the stack.
    """

    path: str
    spec: Walkable
    parent: Placed | None = None

    @property
    def copies(self) -> int:
        """How many of it a model has: the product of the repeats that it is in."""
        return self._product(RepeatSpec)

    @property
    def uses(self) -> int:
        """How often a pass would use it, were it used in every recursion step around it."""
        return self._product(RepeatSpec, RecurSpec)

    def _product(self, *counted: type) -> int:
        product, step = 1, self.parent
        while step is not None:
            product *= step.spec.count if isinstance(step.spec, counted) else 1  # type: ignore[union-attr]
            step = step.parent
        return product


def walk(recipe: Recipe) -> Iterator[Placed]:
    """Every node and every component of a recipe, nested ones too, parents first.

    The model's come first, those of its stack last, then those of the sections.
    """
    yield from walk_components(recipe.model.components, "model")
    yield from walk_stack(recipe.model.stack)
    yield from walk_components(recipe.components, "")


def walk_stack(
    stack: Iterable[NodeSpec], path: str = "model.stack", parent: Placed | None = None
) -> Iterator[Placed]:
    """Every node of a stack and every component in it, parents first."""
    for index, node in enumerate(stack):
        step = Placed(node.at.path or f"{path}[{index}]", node, parent)
        yield step
        yield from walk_components(node.components, step.path, step)
        if not isinstance(node, BlockSpec):
            yield from walk_stack(node.stack, f"{step.path}.stack", step)


def walk_components(value: Any, path: str, parent: Placed | None = None) -> Iterator[Placed]:
    """Every component in a value: a component, a list or a mapping of them, nested ones too."""
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
