"""Incompatible combinations of components, each as a located problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from strawberry.contracts import (
    Attention,
    Component,
    Embedding,
    Loop,
    Positional,
    Residual,
    components,
)
from strawberry.model.looping import is_plain
from strawberry.model.recursion import Recursion

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from strawberry.errors import Problem
    from strawberry.model.stack import BlockNode, Stack
    from strawberry.recipe.spec import BlockSpec, ComponentSpec, ModelSpec, RecurSpec


def of_override(
    spec: BlockSpec,
    mixers: Sequence[tuple[ComponentSpec, Attention]],
    override: Positional | None,
) -> Iterator[Problem]:
    """A block's positional component that none of its attentions supports."""
    if override is None or spec.positional is None:
        return
    name = spec.positional.entry.name
    if "embedding" in override.places:
        message = f"{name!r} is added to the embeddings; write it under model.positional"
        yield spec.positional.problem("", message)
    elif mixers and override.places and not any(override.places & m.honours for _, m in mixers):
        names = " and ".join(repr(part.entry.name) for part, _ in mixers)
        message = (
            f"{names} would ignore {name!r}; write `positional: none`, or choose another attention"
        )
        yield spec.positional.problem("", message)


def of_embedding(spec: ModelSpec, embedding: Embedding, stack: Stack) -> Iterator[Problem]:
    """A tied head that the embedding has no table for, and inputs that it doesn't give."""
    own = spec.components["embedding"]
    table, given = embedding.table, embedding.input_widths()
    if spec.tie_embeddings and (table is None or len(table) != spec.vocab_size):
        message = f"{own.entry.name!r} has no table for a head; write `tie_embeddings: false`"
        yield own.problem("", message)
    asked = {(n, w) for part in components(stack) for n, w in part.reads_inputs.items()}
    for name, width in sorted(asked):
        if given.get(name) != width:
            has = ", ".join(f"{n} ({w} wide)" for n, w in given.items()) or "none"
            message = f"a block reads the input {name} ({width} wide) of the embedding"
            yield own.problem("", f"{message}; {own.entry.name!r} gives {has}")


def of_positions(
    spec: ComponentSpec, positional: Positional, honoured: AbstractSet[str]
) -> Iterator[Problem]:
    """The model's positional component, if no attention of its stack supports it."""
    places = positional.places
    if not places or "embedding" in places or places & honoured:
        return
    message = (
        f"no attention of the stack uses {spec.entry.name!r}; write `positional: none`, "
        "or add an attention that uses it"
    )
    yield spec.problem("", message)


def mixers(
    node: BlockNode, specs: Mapping[str, ComponentSpec]
) -> list[tuple[ComponentSpec, Attention]]:
    """The mixers of a block, with what the recipe says of them."""
    named = zip(node.names, node.modules_of_parts, strict=True)
    return [(specs[n], part) for n, part in named if isinstance(part, Attention) and n in specs]


def of_documents(
    spec: BlockSpec, node: BlockNode, specs: Mapping[str, ComponentSpec]
) -> Iterator[Problem]:
    """Parts of a block, or its body, that can't separate documents."""
    for name, part in [*zip(node.names, node.modules_of_parts, strict=True), ("", node.body)]:
        if not part.separates:
            at = specs.get(name)
            word = type(part).__name__ if at is None else repr(at.entry.name)
            message = f"{word} can't separate documents; write `train.document_mask: false`"
            yield spec.at.problem("", message) if at is None else at.problem("", message)


def of_streams(spec: ComponentSpec, residual: Residual, around: Residual) -> Iterator[Problem]:
    """A block's residual component on another stream than the model's."""
    if type(residual) is not type(around) and not (is_plain(residual) and is_plain(around)):
        name = type(around).__name__
        message = f"{spec.entry.name!r} can't join the stream of the model's {name}"
        yield spec.problem("", message)


def of_recursion(
    spec: RecurSpec,
    nodes: Sequence[BlockNode | Stack],
    residual: Residual,
    loop: Loop | None = None,
    documents: bool = False,
) -> Iterator[Problem]:
    """Combinations that a router, a loop or shared keys exclude."""
    words = [w for w, given in (("router", spec.router), ("loop", spec.loop)) if given is not None]
    words += ["keys"] if spec.keys == "first" else []
    if not words:
        return
    word = words[0]
    if "loop" in words and len(words) > 1:
        message = "`loop` excludes `router` and `keys: first`: it runs the steps itself"
        yield spec.at.problem("loop", message)
    if loop is not None and not loop.any_stream and not is_plain(residual):
        name = type(residual).__name__
        message = f"{type(loop).__name__} can't run on the stream of {name}; write `residual: sum`"
        yield spec.at.problem("loop", message)
    if spec.loop is not None and loop is not None and documents and not loop.separates:
        message = "can't separate documents; write `train.document_mask: false`"
        yield spec.loop.problem("", f"{spec.loop.entry.name!r} {message}")
    drops = spec.router is not None or (loop is not None and loop.tokens == "some")
    if not spec.sharing.endswith("cycle"):
        message = f"`{word}` needs `sharing: cycle` or `middle_cycle`, got {spec.sharing}"
        yield spec.at.problem("sharing", message)
    if drops and not residual.routable:
        name = type(residual).__name__
        message = f"a {word} can't be combined with {name}; write `residual: sum`"
        yield spec.at.problem(word, message)
    inside = [module for node in nodes for module in node.modules()]
    if spec.keys == "first" and any(isinstance(m, Recursion) and m.router for m in inside):
        message = "an inner router would drop tokens whose keys are shared"
        yield spec.at.problem("keys", message)
    for mixer in (m for m in inside if isinstance(m, Component)):
        name = type(mixer).__name__
        if drops and not mixer.routable:
            message = f"{name} mixes whole sequences, but a {word} passes on only some tokens"
            yield spec.at.problem(word, message)
        if not isinstance(mixer, Attention):
            continue
        if spec.keys == "first" and not mixer.shares_keys:
            message = f"{name} can't use the keys of another step; write `keys: own`"
            yield spec.at.problem("keys", message)
