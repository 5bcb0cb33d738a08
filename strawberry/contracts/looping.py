"""The contract of loops: how a recursion runs its stack, how often and on which tokens.

B sequences of T tokens, C model width.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from strawberry.contracts.component import Component
from strawberry.contracts.sites import Site
from strawberry.contracts.stream import Stream
from strawberry.contracts.terms import Aux
from strawberry.contracts.use import Use


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSite(Site):
    """The place of a loop, outside of the blocks that it runs.

    Attributes:
        recur: steps of its recursion, from the recipe. 1 runs the stack once.
    """

    recur: int


class Inner(abc.ABC):
    """The stack that a loop runs. Each step has a decoding state of its own.

    Attributes:
        steps: steps of this pass: those of the recipe, or those that generation asks for.
    """

    steps: int

    @abc.abstractmethod
    def __call__(self, stream: Stream, use: Use, step: int = 0) -> tuple[Stream, Aux]:
        """Run the stack on all tokens, as step `step` (from 0).

        In training it may run more than `steps` times; with a cache, each step once at most.
        """

    @abc.abstractmethod
    def some(
        self, stream: Stream, use: Use, go: Tensor, step: int = 0, *, size: int | None = None
    ) -> tuple[Stream, Aux]:
        """Run the stack on the tokens with `go` (B, T); the others stay as they are.

        Its mixers see a sequence of these tokens alone, and of those that ran this step in
        earlier cached calls.

        Args:
            stream: the stream of all tokens.
            use: as the loop got it.
            go: (B, T) bool; a function of tokens up to the same place, if the loop is causal.
            step: number of the step, from 0.
            size: how many tokens of each sequence go in this call, if equal for all and known
                beforehand; the host then needn't wait for an accelerator.
        """

    @abc.abstractmethod
    def draw(self) -> float:
        """A random number from 0 to 1 (exclusive), the same on all ranks.

        It comes from torch's generator, so that a resumed run draws the same.
        """


class Loop(Component, abc.ABC):
    """How a `recur` runs its stack. Constructed with `(site, *, fields)`, a `LoopSite`.

    Without a loop, all tokens run each step. A loop that repeats an input before each step:

        class Injected(Loop):
            def __init__(self, site: LoopSite) -> None:
                super().__init__()
                self.mix = site.projection("mix", site.n_embd, 2 * site.n_embd)

            def forward(self, stream: Stream, use: Use, inner: Inner) -> tuple[Stream, Aux]:
                first, aux = stream, ()
                for step in range(inner.steps):
                    both = torch.cat([stream, first], dim=-1)
                    stream, more = inner(self.mix(both, use), use, step)
                    aux += more
                return stream, aux

    A loop may cut gradients between steps by `detach`. It must not run `inner` under
    `torch.no_grad`: what a pass computes once, such as derived weights, would lose its gradient.

    Attributes:
        tokens: which tokens `inner` gets: `all`; `some` with their own positions, for which each
            mixer has to be `routable`; or `renumbered`, where they are numbered from 0 on, as a
            sequence of their own.
        exact: whether the recipe and `shares` say how many tokens run each step; false where data
            or random numbers decide.
        any_stream: whether it runs on a stream of any form; otherwise the residual component must
            have a stream (B, T, C).
    """

    tokens: Literal["all", "some", "renumbered"] = "all"
    exact: bool = True
    any_stream: bool = False

    @abc.abstractmethod
    def forward(self, stream: Stream, use: Use, inner: Inner) -> tuple[Stream, Aux]:
        """The stream after the recursion, and the terms of `inner` and of its own.

        With a cache, `use.state` is its own state (see `new_state`).
        """

    def shares(self, steps: int) -> Sequence[float]:
        """Intended share of tokens of each step, for counting FLOPs."""
        return (1.0,) * steps
