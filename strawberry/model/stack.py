"""The stack: blocks, and the nodes that repeat or recur over them.

A node maps the residual stream to itself. Unrolled, a model is a sequence of block uses. Each use
has a *slot* (its number in that sequence), under which a cache stores its state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from strawberry.contracts import (
    FFN,
    Attention,
    Aux,
    Block,
    Component,
    Positional,
    Projection,
    Residual,
    State,
    Stream,
    Use,
    WeightSource,
    components,
    keeps_state,
)

if TYPE_CHECKING:
    from strawberry.model.recursion import Recursion

Sharing: TypeAlias = Literal["cycle", "sequence", "middle_cycle", "middle_sequence"]


class CacheShape(NamedTuple):
    """Size of a decoding cache: batch, length, device, dtype."""

    batch: int
    length: int
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class BlockUse:
    """One use of a block in the unrolled model.

    Attributes:
        block: the block.
        steps: the enclosing recursion steps, outermost first.
        weights: the current weight source.
        path: the path of the block in the model.
        share: intended share of tokens of this use.
        later: True if its mixer uses the keys of an earlier step.
    """

    block: BlockNode
    steps: tuple[int, ...]
    weights: WeightSource
    path: str
    share: float = 1.0
    later: bool = False


class BlockNode(nn.Module):
    """A block in its place: its body, which says in which order its parts run, and those parts.

    The modules of a part NAME are `NAME`, `NAME_norm` and `NAME_join`. `positional` and `weights`,
    where they are not None, take the place of those that are in force around the block; `residual`
    made the joins in place of the model's.
    """

    body: Block
    attention: Attention | None
    ffn: FFN | None

    def __init__(self, dropout: float) -> None:
        super().__init__()
        for name in ("attention", "ffn"):  # absent unless a part of that name is added
            self.register_module(name, None)
        self.positional: Positional | None = None
        self.weights: WeightSource | None = None
        self.residual: Residual | None = None
        self.dropout = nn.Dropout(dropout)
        self.key = ""  # blocks of equal keys are built alike
        self.names: list[str] = []  # of its parts, in the order in which they were asked for
        self.holders: list[str] = []  # its modules that keep a state between cached calls
        self.recompute = False  # keep no activations in training; compute them again instead

    @property
    def modules_of_parts(self) -> list[Component]:
        """What its parts compute with, in order."""
        return [cast("Component", self._modules[name]) for name in self.names]

    @property
    def n_slots(self) -> int:
        """States that a use of it keeps; one at least, which may be empty."""
        return max(1, len(self.holders))

    def sealed(self) -> BlockNode:
        """This block, once all of its modules are there."""
        pieces = [f"{name}{suffix}" for name in self.names for suffix in ("", "_join")]
        self.holders = [
            name
            for name in (*pieces, "body")
            if isinstance(module := self._modules.get(name), Component) and _keeps(module)
        ]
        return self

    def forward(self, stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
        """The stream after this block, and the terms that its parts returned."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return self._forward(stream, use, slot)
        return recomputed(self._forward, stream, use, slot)

    def _forward(self, stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
        if self.positional is not None:
            use = replace(use, positional=self.positional)
        if self.weights is not None:
            use = replace(use, weights=self.weights)
        if use.cache is not None:
            states = {name: use.cache[slot + n] for n, name in enumerate(self.holders)}
            use = replace(use, states=states, state=states.get("body", {}))
        if use.shared is not None:
            use = replace(use, kept=use.shared.store.setdefault(slot - use.shared.first_slot, {}))
        result: tuple[Stream, Aux] = self.body(stream, use)
        return result

    def watched(self) -> tuple[int, int]:
        """The one state after this use."""
        return 1, 0

    def compile_forward(self) -> None:
        """Compile this block; calls with a cache stay eager."""
        eager, compiled = self.forward, torch.compile(self.forward)

        def forward(stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
            return (compiled if use.cache is None else eager)(stream, use, slot)

        self.forward = forward  # type: ignore[method-assign]

    def new_states(
        self, room: CacheShape, weights: WeightSource, later: bool = False
    ) -> Iterator[State]:
        """The state of one use of this block.

        With `later` the mixer uses the keys of an earlier step, and has no state.
        """
        for name in self.holders:
            module = cast("Component", self._modules[name])
            yield state_of(module, room, own=not (later and isinstance(module, Attention)))
        if not self.holders:
            yield {}

    def visits(
        self, steps: tuple[int, ...], weights: WeightSource, path: str
    ) -> Iterator[BlockUse]:
        """This one use."""
        yield BlockUse(self, steps, self.weights or weights, path)


def state_of(part: Component, room: CacheShape, *, own: bool = True) -> State:
    """The state of one use of a part: its own, if wanted, and that of its projections."""
    state = dict(part.new_state(*room)) if own and part.cacheable else {}
    for inside in components(part):
        if isinstance(inside, Projection):
            state |= inside.new_state(*room)
    return state


def recomputed(
    forward: Callable[[Stream, Use, int], tuple[Stream, Aux]],
    stream: Stream,
    use: Use,
    slot: int,
) -> tuple[Stream, Aux]:
    """`forward` without saved activations; it runs again in the backward pass.

    Both runs begin with the same `use.memo` and `use.once`. Values that the first run leaves there
    are part of the graph, like its results, so later blocks find the same values as without
    recomputation.
    """
    memo, once = copied(use.memo), copied(use.once)

    def run(stream: Stream) -> Any:
        alone = replace(use, memo=copied(memo), once=copied(once))
        return forward(stream, alone, slot), alone.memo, alone.once

    result, after, after_once = checkpoint(run, stream, use_reentrant=False)
    for kept, new in ((use.memo, after), (use.once, after_once)):
        kept.clear()  # what was taken out stays out
        kept.update(new)
    return result


def copied(kept: Any) -> Any:
    """Copy dicts, lists, tuples and sets recursively; other values stay the same objects."""
    if type(kept) is dict:
        return {key: copied(value) for key, value in kept.items()}
    if type(kept) in (list, tuple):
        return type(kept)(copied(value) for value in kept)
    return set(kept) if type(kept) is set else kept


def recompute_blocks(model: nn.Module) -> None:
    """Let every block save no activations in training, but recompute them."""
    for module in model.modules():
        if isinstance(module, BlockNode):
            module.recompute = True


def _keeps(piece: Component) -> bool:
    """Whether a piece of a block has a decoding state, of its own or of a projection in it."""
    inside = (module for module in components(piece) if isinstance(module, Projection))
    return (piece.cacheable and keeps_state(piece)) or any(map(keeps_state, inside))


def read_of(stream: Stream, use: Use) -> Tensor:
    """What would leave the stack here, (B, T, C)."""
    return cast("Tensor", stream) if use.residual is None else use.residual.end(stream, use)


def dropped(dropout: nn.Dropout, x: Tensor) -> Tensor:
    """`x` through a dropout, without a call if that does nothing."""
    return dropout(x) if dropout.training and dropout.p else x


class Stack(nn.Module):
    """Nodes, each used once, in order: the form of `stack` and `repeat`."""

    def __init__(
        self, nodes: Sequence[BlockNode | Stack], weights: WeightSource | None = None
    ) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(nodes)
        self.weights = weights
        self.depth = len(self.nodes)

    def set_depth(self, depth: int) -> None:
        """Run the first so many nodes; raises ValueError if there are not as many."""
        if not 0 < depth <= len(self.nodes):
            raise ValueError(f"{depth} nodes are not between 1 and {len(self.nodes)}")
        self.depth = depth

    def idle(self) -> list[nn.Parameter]:
        """The parameters of nodes that don't run, which no other node has."""
        if self.depth == len(self.nodes):
            return []
        running = {p for node in self.nodes[: self.depth] for p in node.parameters()}
        rest = [p for node in self.nodes[self.depth :] for p in node.parameters()]
        return [p for p in dict.fromkeys(rest) if p not in running]

    def order(self) -> Sequence[int]:
        """The node of each use."""
        return range(self.depth)

    @property
    def n_slots(self) -> int:
        """Slots of all uses below."""
        return self._slots_below()

    def _slots_below(self) -> int:
        return sum(self._node(index).n_slots for index in self.order())

    def forward(self, stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
        """The stream after all uses; the first block use below has slot `slot`."""
        if self.weights is not None:
            use = replace(use, weights=self.weights)
        return self.in_turn(stream, use, slot, self.order())

    def in_turn(
        self, stream: Stream, use: Use, slot: int, indices: Sequence[int]
    ) -> tuple[Stream, Aux]:
        """The stream after these nodes, in order."""
        aux: Aux = ()
        for index in indices:
            stream, more = self._run(index, stream, use, slot)
            slot, aux = slot + self._node(index).n_slots, aux + more
        return stream, aux

    def _run(self, index: int, stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
        """The stream after one use of a node; what a block leaves is shown to who watches."""
        node = self._node(index)
        if use.watch is None or isinstance(node, Stack):
            return node(stream, use, slot)
        stream, aux = node(stream, replace(use, watch=None), slot)
        use.watch.after_block(read_of(stream, use))
        return stream, aux

    def watched(self) -> tuple[int, int]:
        """How many states there are to watch: after blocks, and after recursion steps."""
        every = [self._node(i).watched() for i in self.order()]
        return sum(blocks for blocks, _ in every), sum(steps for _, steps in every)

    def new_states(
        self, room: CacheShape, weights: WeightSource, later: bool = False
    ) -> Iterator[State]:
        """The states of all uses below, in the order of their slots."""
        for index in self.order():
            yield from self._node(index).new_states(room, self.weights or weights, later)

    def visits(
        self, steps: tuple[int, ...], weights: WeightSource, path: str
    ) -> Iterator[BlockUse]:
        """All block uses below, in the order of their slots."""
        for index in self.order():
            source = self.weights or weights
            yield from self._node(index).visits(steps, source, f"{path}.nodes.{index}")

    def recursions(self) -> Iterator[Recursion]:
        """All uses of recursions below."""
        for index in self.order():
            node = self._node(index)
            if isinstance(node, Stack):
                yield from node.recursions()

    def units(self) -> Iterator[BlockNode | Stack]:
        """The blocks outside any recursion, and the outermost recursions, in order."""
        for node in self.nodes:
            if isinstance(node, Stack):
                yield from node.units()
            else:
                yield cast("BlockNode", node)

    def outermost(self) -> list[Recursion]:
        """The outermost recursions below."""
        return [cast("Recursion", unit) for unit in self.units() if isinstance(unit, Stack)]

    def _node(self, index: int) -> BlockNode | Stack:
        node = self.nodes[index]
        assert isinstance(node, (BlockNode, Stack))
        return node


def recursion(n_nodes: int, steps: int, sharing: Sharing) -> list[tuple[int, int]]:
    """The uses of `n_nodes` shared nodes over `steps` recursion steps: (node, step).

    Sharing patterns of Mixture-of-Recursions (arXiv 2507.10524, table 1): `cycle` uses all nodes in
    turn, repeatedly; `sequence` uses each node `steps` times in a row; the `middle` forms use the
    first and the last node once. Raises ValueError if a middle form has no middle.
    """
    if sharing.startswith("middle"):
        if n_nodes < 3:
            raise ValueError(f"sharing {sharing!r} needs at least 3 nodes, got {n_nodes}")
        first, *inner, last = range(n_nodes)
    else:
        first, inner, last = None, list(range(n_nodes)), None
    if sharing.endswith("cycle"):
        uses = [(index, step) for step in range(steps) for index in inner]
    else:
        uses = [(index, step) for index in inner for step in range(steps)]
    head = [] if first is None else [(first, 0)]
    tail = [] if last is None else [(last, steps - 1)]
    return [*head, *uses, *tail]
