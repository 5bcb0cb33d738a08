"""Recursion: the same nodes, applied repeatedly; with a router, to fewer tokens at each step.

B sequences of T tokens; K of each run a step; C model width.

A routed step is computed only for the tokens that continue, gathered in their order.
Mixers see a shorter sequence, with the positions of its tokens. A sequence with fewer tokens than
another is padded at the end, where a causal mixer hides the padding; its results are discarded.

With a cache each step stores the keys of its own tokens (recursion-wise caching). If keys are
shared, all steps use those of the first (Mixture-of-Recursions, arXiv 2507.10524, section 2.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from strawberry.contracts import (
    Aux,
    Loop,
    Router,
    SharedKeys,
    State,
    Stream,
    Term,
    Use,
    WeightSource,
    keeps_state,
)
from strawberry.model.gathering import (
    Active,
    chosen,
    gather,
    merged,
    put_back,
    row_of,
    share_of,
    sharing,
)
from strawberry.model.looping import RecursionInner, new_loop_state
from strawberry.model.stack import (
    BlockNode,
    BlockUse,
    CacheShape,
    Sharing,
    Stack,
    read_of,
    recursion,
    state_of,
)

DEAD = 0.01
"""A step with a smaller share of tokens counts as dead."""


class Recursion(Stack):
    """`steps` uses of nodes with shared weights, in one of four orders.

    Args:
        nodes: the recurring nodes; with a middle sharing the first and the last are used once.
        steps: recursion steps R.
        sharing: the order of uses.
        weights: the weight source of this recursion, or None.
        router: chooses the tokens of each step; None for all.
        loop: runs the steps in its own way; None runs one after the other.
        share_keys: whether later steps use the keys and values of the first.
        step_embedding: width of a learned vector for each step that is added to its input, zero at
            the start; None for none.
    """

    def __init__(
        self,
        nodes: Sequence[BlockNode | Stack],
        steps: int,
        sharing: Sharing,
        weights: WeightSource | None = None,
        *,
        router: Router | None = None,
        loop: Loop | None = None,
        share_keys: bool = False,
        step_embedding: int | None = None,
    ) -> None:
        super().__init__(nodes, weights)
        self.schedule = tuple(recursion(len(nodes), steps, sharing))
        self.steps = steps
        self.trained_steps = steps
        self.sharing: Sharing = sharing
        self.router = router
        self.loop = loop
        self.share_keys = share_keys
        self.step_embedding: nn.Parameter | None = None
        if step_embedding is not None:
            self.step_embedding = nn.Parameter(torch.zeros(steps, step_embedding))

    def set_steps(self, steps: int) -> None:
        """Recur more or fewer times than in training; raises ValueError if that is impossible."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if self.router is not None and steps > self.trained_steps:
            raise ValueError(f"its router was trained for {self.trained_steps} steps, got {steps}")
        if self.router is not None:
            self.router.max_steps = steps
        self.steps = steps
        self.schedule = tuple(recursion(len(self.nodes), steps, self.sharing))

    def order(self) -> Sequence[int]:
        """The node of each use."""
        return [index for index, _ in self.schedule]

    @property
    def n_slots(self) -> int:
        """Slots of all uses, and one for a router's record of its choices, or a loop's state."""
        return self._slots_below() + (self.router is not None or self._loop_keeps)

    @property
    def _loop_keeps(self) -> bool:
        loop = self.loop
        return loop is not None and (loop.tokens != "all" or bool(keeps_state(loop)))

    def forward(self, stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
        """The stream after all steps; the first block use below has slot `slot`."""
        if self.weights is not None:
            use = replace(use, weights=self.weights)
        if self.router is None and self.loop is None and not self.share_keys:
            stream, aux = self._in_order(stream, use, slot)
        else:
            stream, aux = self._in_steps(stream, use, slot)
        return self.between(stream, use, self.steps - 1), aux

    def _in_steps(self, stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
        """The first node, every step over those that recur, the last node."""
        first, inner, last = self._parts()
        aux: Aux = ()
        if first is not None:
            stream, aux = self._run(first, stream, use.at(0), slot)
            slot += self._node(first).n_slots
        if self.loop is not None:
            stream, more = self._looped(self.loop, stream, use, slot, inner)
        elif self.router is None:
            stream, more = self._with_same_keys(stream, use, slot, inner)
        else:
            stream, more = self._routed(stream, use, slot, inner)
        if use.watch is not None and (self.loop or self.router) is not None:
            use.watch.after_block(read_of(stream, use))
        aux += more
        if last is not None:
            slot += self.steps * self.width(inner)
            stream, more = self._run(last, stream, use.at(self.steps - 1), slot)
            aux += more
        return stream, aux

    def watched(self) -> tuple[int, int]:
        """The states after blocks, and after steps where all blocks run one step, then the next."""
        blocks, _ = super().watched()
        if self.router is not None or self.loop is not None:
            first, _, last = self._parts()
            ends = [self._node(index) for index in (first, last) if index is not None]
            blocks = 1 + sum(node.watched()[0] for node in ends)
        return blocks, self.steps if self.sharing.endswith("cycle") else 0

    def new_states(
        self, room: CacheShape, weights: WeightSource, later: bool = False
    ) -> Iterator[State]:
        """The states of all uses below, and with a router the record of each step's tokens."""
        _, inner, _ = self._parts()
        for index, step in self.schedule:
            taken = later or (self.share_keys and index in inner and step > 0)
            yield from self._node(index).new_states(room, self.weights or weights, taken)
        if self.loop is not None and self._loop_keeps:
            yield new_loop_state(self.loop, self.steps, state_of(self.loop, room), room)
        if self.router is not None:
            shape = (room.batch, self.steps)
            at_hand = "meta" if room.device.type == "meta" else "cpu"  # counts decide shapes
            yield {
                "counts": torch.zeros(shape, dtype=torch.int64, device=at_hand),
                "positions": torch.zeros(
                    *shape, room.length, dtype=torch.int64, device=room.device
                ),
            }

    def visits(
        self, steps: tuple[int, ...], weights: WeightSource, path: str
    ) -> Iterator[BlockUse]:
        """All block uses below, in the order of slots, with their intended shares of tokens."""
        shares = None if self.router is None else self.router.shares()
        if self.loop is not None:
            shares = self.loop.shares(self.steps)
        _, inner, _ = self._parts()
        source = self.weights or weights
        for index, step in self.schedule:
            share = 1.0 if shares is None or index not in inner else shares[step]
            later = self.share_keys and index in inner and step > 0
            for visit in self._node(index).visits((*steps, step), source, f"{path}.nodes.{index}"):
                yield replace(visit, share=visit.share * share, later=visit.later or later)

    def units(self) -> Iterator[BlockNode | Stack]:
        """This recursion: its inner recursions are used as part of it."""
        yield self

    def recursions(self) -> Iterator[Recursion]:
        """This use, and all below."""
        yield self
        yield from super().recursions()

    # Without a router

    def _in_order(self, stream: Stream, use: Use, slot: int) -> tuple[Stream, Aux]:
        """Every use for all tokens, in the order of the schedule."""
        aux: Aux = ()
        before: int | None = None
        for index, step in self.schedule:
            if step != before:
                if before is not None:
                    stream = self.between(stream, use, before)
                stream = self.enter(stream, step, use)
            before = step
            stream, more = self._run(index, stream, use.at(step), slot)
            slot, aux = slot + self._node(index).n_slots, aux + more
        return stream, aux

    def between(self, stream: Stream, use: Use, step: int) -> Stream:
        """The stream as the next step finds it; what a step leaves is shown to who watches."""
        if use.watch is None or use.steps or not self.sharing.endswith("cycle"):
            return stream
        cut = use.watch.after_step(read_of(stream, use), step) and step < self.steps - 1
        return tree_map_only(Tensor, Tensor.detach, stream) if cut else stream

    def _with_same_keys(
        self, stream: Stream, use: Use, slot: int, inner: Sequence[int]
    ) -> tuple[Stream, Aux]:
        """All steps for all tokens, with the keys and values of the first."""
        aux: Aux = ()
        store: dict[int, State] = {}
        tokens = use.positions.shape[-1]
        for step in range(self.steps):
            stream = self.enter(stream, step, use)
            shared = SharedKeys(store, slot, step > 0, tokens, documents=use.documents)
            inside = replace(use.at(step), shared=shared)
            stream, more = self.in_turn(stream, inside, slot, inner)
            if step < self.steps - 1:
                stream = self.between(stream, use, step)
            if use.watch is not None and use.watch.cut:
                store.update(tree_map_only(Tensor, Tensor.detach, store))
            slot, aux = slot + self.width(inner), aux + more
        return stream, aux

    def enter(self, stream: Stream, step: int, use: Use) -> Stream:
        """Add the vector of this step; beyond the trained steps that of the last."""
        if self.step_embedding is None:
            return stream
        vector = self.step_embedding[min(step, self.trained_steps - 1)]
        assert use.residual is not None
        return use.residual.shift(stream, vector)

    # With a loop

    def _looped(
        self, loop: Loop, stream: Stream, use: Use, slot: int, inner: Sequence[int]
    ) -> tuple[Stream, Aux]:
        """The inner nodes, run by the loop."""
        own: State | None = None
        if use.cache is not None:
            last = self._parts()[2]
            after = 0 if last is None else self._node(last).n_slots
            place = slot + self.steps * self.width(inner) + after
            own = use.cache[place] if self._loop_keeps else {}
        run = RecursionInner(self, slot, inner, own)
        result: tuple[Stream, Aux] = loop(stream, replace(use, state=own), run)
        return result

    # With a router

    def _routed(
        self, stream: Stream, use: Use, slot: int, inner: Sequence[int]
    ) -> tuple[Stream, Aux]:
        """All steps over the inner nodes, each for the tokens that go."""
        if use.cache is None:
            return self._steps(stream, use, slot, inner, None)
        # Sequences differ in how many tokens a step keeps: each goes by itself.
        end = slot + self.steps * self.width(inner)
        last = self._parts()[2]
        own = end + (0 if last is None else self._node(last).n_slots)
        rows = []
        for row in range(len(use.cache[own]["counts"])):
            cache = list(use.cache)
            for place in (*range(slot, end), own):
                cache[place] = {n: t[row : row + 1] for n, t in use.cache[place].items()}
            alone = replace(
                use,
                cache=cache,
                watch=None,
                positions=row_of(use.positions, row),
                tokens=None if use.tokens is None else use.tokens[row : row + 1],
                inputs={name: values[row : row + 1] for name, values in use.inputs.items()},
            )
            one = tree_map(lambda x, row=row: x[row : row + 1], stream)
            rows.append(self._steps(one, alone, slot, inner, cache[own])[0])
            for place in (*range(slot, end), own):
                put_back(use.cache[place], cache[place], row)
        return tree_map(lambda *parts: torch.cat(parts), *rows), ()

    def _steps(
        self, stream: Stream, use: Use, slot: int, inner: Sequence[int], seen: State | None
    ) -> tuple[Stream, Aux]:
        """The steps; `seen` records which tokens of the one sequence ran each step before."""
        assert self.router is not None
        x = read_of(stream, use)
        (B, T, _), device = x.shape, x.device
        active = Active(torch.arange(T, device=device).expand(B, T), {}, None)
        first: tuple[Active, Use] | None = None
        store: dict[int, State] = {}
        shares: list[Tensor] = []
        aux: Aux = ()
        told: list[Aux] = []
        for step in range(self.steps):
            going, terms = self._choose(read_of(stream, use), active, step)
            told.append(terms)
            if going is None:
                break
            active = going
            before = tree_map(lambda x, at=active.places: gather(x, at), stream)
            inside = self._inside(use, active, step, seen)
            first = first or (active, inside)
            if self.share_keys:
                inside = sharing(inside, store, slot, active, first, T)
            after, terms = self.in_turn(self.enter(before, step, use), inside, slot, inner)
            stream = merged(stream, before, after, active, self.router, step)
            if step < self.steps - 1:
                stream = self.between(stream, use, step)
            shares.append(share_of(active, B * T))
            slot, aux = slot + self.width(inner), aux + terms
        if seen is None:
            aux += self._statistics(shares, device)
        # What a step tells that no token asked for is 0: a mean over steps is over all of them.
        silent = [term._replace(value=torch.zeros_like(term.value)) for term in told[-1]]
        return stream, aux + sum(told, ()) + tuple(silent) * (self.steps - len(told))

    def _choose(self, x: Tensor, active: Active, step: int) -> tuple[Active | None, Aux]:
        """The tokens that run this step, or None if there are none."""
        assert self.router is not None
        routed = self.router.route(
            gather(x, active.places), step, active.carried, x.shape[1], active.real
        )
        go, size = routed.go, routed.size
        if active.real is not None:
            go, size = go & active.real, None
        some = chosen(go, size, together=self.training)
        if some is None:
            return None, routed.terms
        carried = {name: gather(kept, some.places) for name, kept in routed.carried.items()}
        places = active.places.gather(1, some.places)
        return replace(some, places=places, carried=carried), routed.terms

    def _inside(self, use: Use, active: Active, step: int, seen: State | None) -> Use:
        """The use of this step: the remaining tokens, and its own part of the cache."""
        B = len(active.places)
        positions = gather(use.positions.expand(B, -1), active.places)
        inside = replace(
            use.at(step),
            positions=positions,
            memo={},
            watch=None,
            tokens=None if use.tokens is None else gather(use.tokens, active.places),
            inputs={name: gather(values, active.places) for name, values in use.inputs.items()},
            documents=None if use.documents is None else gather(use.documents, active.places),
        )
        if seen is None:
            return replace(inside, key_positions=positions)
        count = int(seen["counts"][0, step])
        end = count + positions.shape[1]
        seen["positions"][:, step, count:end] = positions
        seen["counts"][0, step] = end
        return replace(inside, offset=count, key_positions=seen["positions"][:, step, :end])

    def _statistics(self, shares: list[Tensor], device: torch.device) -> Aux:
        """Metrics: the share of tokens of each step, dead steps, mean depth."""
        every = torch.zeros(self.steps, device=device)
        if shares:
            every[: len(shares)] = torch.stack(shares)
        terms = [Term(f"step_{n + 1}_share", share) for n, share in enumerate(every)]
        dead = Term("dead_steps", every, read=lambda share: (share < DEAD).sum())
        return (*terms, dead, Term("mean_depth", every.sum()))

    # Small things

    def _parts(self) -> tuple[int | None, tuple[int, ...], int | None]:
        """The node before the steps, the recurring nodes, and the node after."""
        every = tuple(range(len(self.nodes)))
        if self.sharing.startswith("middle"):
            return every[0], every[1:-1], every[-1]
        return None, every, None

    def width(self, inner: Sequence[int]) -> int:
        """Slots of one step."""
        return sum(self._node(index).n_slots for index in inner)
