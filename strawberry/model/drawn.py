"""A model's tree of blocks as HTML, for a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from strawberry.model.accounting import shapes
from strawberry.model.recursion import Recursion
from strawberry.model.stack import BlockNode, Stack

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel


def drawn(model: LanguageModel) -> str:
    """The stack as nested lists; equal neighbours are one entry with their number."""
    count = sum(parameter.numel() for parameter in model.parameters())
    uses = len(model.visits())
    head = f"<b>{type(model).__name__}</b>: {count:,} parameters, {uses} block uses"
    return f"<div>{head}{_list(model.stack)}</div>"


def _list(stack: Stack) -> str:
    texts = (_node(node) for node in stack.nodes)
    items = []
    for text, equal in groupby(texts):
        many = len(list(equal))
        items.append(f"<li>{f'{many} times: ' if many > 1 else ''}{text}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _node(node: Any) -> str:
    if isinstance(node, Recursion):
        return f"<b>recur {node.steps}</b> {escape(node.sharing)}{_list(node)}"
    if isinstance(node, BlockNode):
        return f"block<ul>{''.join(_parts(node))}</ul>"
    return f"<b>stack</b>{_list(node)}" if isinstance(node, Stack) else escape(type(node).__name__)


def _parts(block: BlockNode) -> Iterator[str]:
    for part in block.modules_of_parts:
        matrices = ", ".join(shapes(part))
        yield f"<li><code>{type(part).__name__}</code> {escape(matrices)}</li>"
