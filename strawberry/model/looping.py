"""Running a recursion by its loop: the inner stack as a component sees it.

B sequences of T tokens; K of each run a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from strawberry.contracts import (
    Aux,
    Inner,
    Loop,
    LoopSite,
    Residual,
    Site,
    State,
    Stream,
    Use,
    of_main,
)
from strawberry.model.gathering import Active, chosen, gather, put_back, replaced, row_of


def loop_site(site: Site, recur: int) -> LoopSite:
    """The site of the loop of a recursion of so many steps."""
    return LoopSite(**{item.name: getattr(site, item.name) for item in fields(Site)}, recur=recur)


def is_plain(residual: Residual) -> bool:
    """Whether the stream of a residual component is (B, T, C)."""
    kind = type(residual)
    return kind.begin is Residual.begin and kind.end is Residual.end


def new_loop_state(loop: Loop, steps: int, own: State, room: Any) -> State:
    """The decoding state of a loop: its own, and the tokens that ran each step."""
    if loop.tokens == "all":
        return own
    at_hand = "meta" if room.device.type == "meta" else "cpu"  # counts decide shapes
    shape = (room.batch, steps)
    places = torch.zeros(*shape, room.length, dtype=torch.int64, device=room.device)
    counts = torch.zeros(shape, dtype=torch.int64, device=at_hand)
    return {**own, COUNTS: counts, POSITIONS: places}


class Recurring(Protocol):
    """A recursion, as far as its loop needs it."""

    loop: Loop | None
    steps: int
    training: bool

    def between(self, stream: Stream, use: Use, step: int) -> Stream:
        """The stream as the next step finds it."""

    def enter(self, stream: Stream, step: int, use: Use) -> Stream:
        """The stream with the vector of this step."""

    def in_turn(
        self, stream: Stream, use: Use, slot: int, indices: Sequence[int]
    ) -> tuple[Stream, Aux]:
        """The stream after these nodes."""

    def width(self, inner: Sequence[int]) -> int:
        """Slots of one step."""


COUNTS = "loop.counts"
POSITIONS = "loop.positions"


class RecursionInner(Inner):
    """The recurring nodes of a recursion, run by its loop.

    Args:
        recursion: whose nodes these are.
        slot: of the first block use of the first step.
        nodes: the recurring ones.
        seen: the state of the loop, of a cached pass.
    """

    def __init__(
        self, recursion: Recurring, slot: int, nodes: Sequence[int], seen: State | None
    ) -> None:
        self.recursion, self.slot, self.nodes, self.seen = recursion, slot, nodes, seen
        self.steps = recursion.steps

    def __call__(self, stream: Stream, use: Use, step: int = 0) -> tuple[Stream, Aux]:
        """All tokens."""
        inside = replace(use.at(step), state=None, watch=None)
        stream, aux = self._run(stream, inside, step)
        if step < self.steps - 1:
            stream = self.recursion.between(stream, use, step)
        return stream, aux

    def some(
        self, stream: Stream, use: Use, go: Tensor, step: int = 0, *, size: int | None = None
    ) -> tuple[Stream, Aux]:
        """Those that go."""
        loop = self.recursion.loop
        assert loop is not None
        if loop.tokens == "all":
            raise ValueError(f"{type(loop).__name__} runs some tokens, but declares that all run")
        if use.cache is not None:
            return self._row_by_row(stream, use, go, step, size), ()
        active = chosen(go, size, together=self.recursion.training)
        if active is None:
            return stream, ()
        inside = self._inside(use, active, step)
        if loop.tokens == "some":
            inside = replace(inside, key_positions=inside.positions)
        before = tree_map(lambda x: gather(x, active.places), stream)
        after, aux = self._run(before, inside, step)
        return replaced(stream, before, after, active), aux

    def draw(self) -> float:
        """From the generator of the first rank."""
        return float(of_main(torch.rand((), dtype=torch.float64)))

    def _run(self, stream: Stream, inside: Use, step: int) -> tuple[Stream, Aux]:
        entered = self.recursion.enter(stream, step, inside)
        slot = self.slot + step * self.recursion.width(self.nodes)
        return self.recursion.in_turn(entered, inside, slot, self.nodes)

    def _inside(self, use: Use, active: Active, step: int, done: int = 0) -> Use:
        """The use of the tokens that go; `done` of them came in earlier calls."""
        B, K = active.places.shape
        renumbered = self.recursion.loop is not None and self.recursion.loop.tokens == "renumbered"
        positions = (
            torch.arange(done, done + K, device=active.places.device)
            if renumbered
            else gather(use.positions.expand(B, -1), active.places)
        )
        return replace(
            use.at(step),
            state=None,
            positions=positions,
            memo={},
            watch=None,
            tokens=None if use.tokens is None else gather(use.tokens, active.places),
            inputs={name: gather(values, active.places) for name, values in use.inputs.items()},
            documents=None if use.documents is None else gather(use.documents, active.places),
        )

    def _row_by_row(
        self, stream: Stream, use: Use, go: Tensor, step: int, size: int | None
    ) -> Stream:
        """Each sequence by itself, since they differ in how many tokens go."""
        assert use.cache is not None
        assert self.seen is not None
        width = self.recursion.width(self.nodes)
        own = range(self.slot + step * width, self.slot + (step + 1) * width)
        rows = []
        for row in range(len(go)):
            one = tree_map(lambda x, row=row: x[row : row + 1], stream)
            active = chosen(go[row : row + 1], size, together=False)
            if active is None:
                rows.append(one)
                continue
            cache = list(use.cache)
            for place in own:
                cache[place] = {n: t[row : row + 1] for n, t in use.cache[place].items()}
            alone = replace(
                use,
                cache=cache,
                positions=row_of(use.positions, row),
                tokens=None if use.tokens is None else use.tokens[row : row + 1],
                inputs={name: values[row : row + 1] for name, values in use.inputs.items()},
            )
            inside = self._counted(alone, replace(active, real=None), step, row)
            before = tree_map(lambda x, at=active.places: gather(x, at), one)
            after, _ = self._run(before, inside, step)
            rows.append(replaced(one, before, after, replace(active, real=None)))
            for place in own:
                put_back(use.cache[place], cache[place], row)
        return tree_map(lambda *parts: torch.cat(parts), *rows)

    def _counted(self, use: Use, active: Active, step: int, row: int) -> Use:
        """The use of one sequence's tokens, which are recorded."""
        assert self.seen is not None
        done = int(self.seen[COUNTS][row, step])
        inside = self._inside(use, active, step, done)
        end = done + active.places.shape[1]
        self.seen[COUNTS][row, step] = end
        if inside.positions.ndim == 1:
            return replace(inside, offset=done)
        self.seen[POSITIONS][row, step, done:end] = inside.positions[0]
        keys = self.seen[POSITIONS][row : row + 1, step, :end]
        return replace(inside, offset=done, key_positions=keys)


class CountedInner(Inner):
    """A stack that costs nothing, to count what a loop does beside it."""

    def __init__(self, loop: Loop, steps: int) -> None:
        self.loop, self.steps = loop, steps

    def __call__(self, stream: Stream, use: Use, step: int = 0) -> tuple[Stream, Aux]:
        """As it was."""
        return stream, ()

    def some(
        self, stream: Stream, use: Use, go: Tensor, step: int = 0, *, size: int | None = None
    ) -> tuple[Stream, Aux]:
        """The intended share of tokens is taken and put back."""
        share = self.loop.shares(self.steps)[min(step, self.steps - 1)]
        size = max(1, int(share * go.shape[1] + 1e-9)) if size is None else size
        active = chosen(torch.zeros_like(go), size, together=False)
        assert active is not None
        before = tree_map(lambda x: gather(x, active.places), stream)
        return replaced(stream, before, before, active), ()

    def draw(self) -> float:
        """The middle."""
        return 0.5
