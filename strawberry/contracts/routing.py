"""The contract of routers: which tokens of a recursion continue."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from strawberry.contracts.component import Component
from strawberry.contracts.terms import Aux
from strawberry.contracts.use import State


@dataclass(frozen=True, slots=True)
class RouterSite:
    """The recursion of a router.

    Attributes:
        n_embd: model width C.
        steps: recursion steps R in training.
        depth: unrolled depth of the whole model, in blocks.
        around: recursion steps of each `recur` around that one, outermost first.
    """

    n_embd: int
    steps: int
    depth: int = 1
    around: tuple[int, ...] = ()


class Routed(NamedTuple):
    """A router's decision before a recursion step, for K tokens of each of B sequences.

    Attributes:
        go: mask of the tokens that run the step, (B, K) bool.
        carried: the router's values of each token for later steps, tensors (B, K, ...) by name.
        terms: losses and metrics.
        size: number of continuing tokens of each sequence, if equal for all and known beforehand.
    """

    go: Tensor
    carried: State
    terms: Aux = ()
    size: int | None = None


class Router(Component, abc.ABC):
    """Chooses the tokens of a recursion's next step. Constructed with `(site, *, fields)`.

    The site is a `RouterSite`. Only those that ran the last step are asked about the next one. A
    step is computed for the tokens that go, and for no others. One with a gate for each token:

        class Gated(Router):
            def __init__(self, site):
                super().__init__()
                self.steps, self.gate = site.steps, nn.Linear(site.n_embd, 1)

            def route(self, x, step, carried, length, real):
                gate = self.gate(x).squeeze(-1).sigmoid()
                return Routed((gate > 0.5) | (step == 0), {"gate": gate})

            def merge(self, x, y, step, carried):
                return torch.lerp(x, y, carried["gate"][..., None])

            def shares(self):
                return [0.5**step for step in range(self.steps)]

    Attributes:
        exact: True if the actual shares in training are the intended ones.
        max_steps: steps that are run at most, where fewer than in training; set by the recursion.
        teachable: whether `teach` lets it decide otherwise.
    """

    exact: bool = False
    teachable: bool = False
    max_steps: int | None = None
    waits: str = "the data determine how many tokens run a step, and so the shapes"

    def teach(self, on: bool) -> None:
        """Decide in evaluation as in training, where training looks ahead: to measure the gap."""

    @abc.abstractmethod
    def route(
        self, x: Tensor, step: int, carried: State, length: int, real: Tensor | None
    ) -> Routed:
        """Decide for `x` (B, K, C) before `step` (from 0).

        Args:
            x: the tokens of the previous step, in order; all at step 0.
            step: the recursion step.
            carried: the result of `route` for these tokens at the previous step; empty at step 0.
            length: number of tokens of a sequence, including those that have left.
            real: (B, K), False for padding of a sequence to the number of tokens of another.
        """

    @abc.abstractmethod
    def merge(self, x: Tensor, y: Tensor, step: int, carried: State) -> Tensor:
        """The new state (B, K, C) of tokens that ran `step`, from the state before, and its result.

        Its result at a token's last step leaves the recursion.
        """

    @abc.abstractmethod
    def shares(self) -> Sequence[float]:
        """Intended share of tokens of each step, for counting FLOPs."""
