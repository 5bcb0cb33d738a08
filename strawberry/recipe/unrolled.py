"""Expand a stack spec and count its depth, without building modules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from strawberry.recipe.spec import BlockSpec, ComponentSpec, RecurSpec, RepeatSpec

if TYPE_CHECKING:
    from strawberry.recipe.spec import NodeSpec


def expand(stack: tuple[NodeSpec, ...]) -> tuple[NodeSpec, ...]:
    """The stack with each `repeat` written out, so that sharing patterns see single blocks.

    A `repeat` with its own weight source stays one node.
    """
    nodes: list[NodeSpec] = []
    for node in stack:
        if isinstance(node, RepeatSpec) and node.weights is None:
            nodes += expand(node.stack) * node.count
        else:
            nodes.append(node)
    return tuple(nodes)


def last_block(stack: tuple[NodeSpec, ...]) -> BlockSpec:
    """The block that a stack ends with."""
    node = stack[-1]
    return node if isinstance(node, BlockSpec) else last_block(node.stack)


def unrolled_depth(stack: tuple[NodeSpec, ...]) -> int:
    """Number of block uses of a stack."""
    depth = 0
    for node in stack:
        if isinstance(node, BlockSpec):
            depth += 1
            continue
        inner = unrolled_depth(node.stack)
        nodes = expand(node.stack)
        middle = isinstance(node, RecurSpec) and node.sharing.startswith("middle")
        if middle and len(nodes) > 2:  # fewer are refused where they are built
            ends = unrolled_depth(nodes[:1]) + unrolled_depth(nodes[-1:])
            depth += ends + (inner - ends) * node.count
        else:
            depth += inner * node.count
    return depth


def key_of(spec: BlockSpec, body: ComponentSpec, weights: object, positional: object) -> str:
    """A key that is equal for equal blocks whose uses cost the same."""
    parts = [body, spec.attention, spec.ffn, spec.norm, spec.positional, spec.residual]
    text = json.dumps([None if p is None else _plain(p) for p in parts], sort_keys=True)
    return f"{text} {type(weights).__name__} {id(weights)} {id(positional)}"


def _plain(value: Any) -> Any:
    if isinstance(value, ComponentSpec):
        return [value.use, {name: _plain(field) for name, field in value.fields.items()}]
    return value
