"""Which tokens of a recursion go on."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from strawberry.contracts.terms import Aux
from strawberry.contracts.use import State


@dataclass(frozen=True, slots=True)
class RouterSite:
    """The recursion whose tokens a router routes.

    Attributes:
        n_embd: model width C.
        steps: recursion steps R that it is trained with.
    """

    n_embd: int
    steps: int


class Routed(NamedTuple):
    """What a router decides before a recursion step, for K tokens of each of B sequences.

    Attributes:
        go: which of them run the step, (B, K) bool.
        carried: what the router keeps of each token for later, tensors (B, K, ...) by name.
        terms: losses and metrics.
        size: how many of each sequence go, where that is the same for all and known beforehand.
    """

    go: Tensor
    carried: State
    terms: Aux = ()
    size: int | None = None


class Router(nn.Module, abc.ABC):
    """Which tokens run a recursion's next step. Constructed with `(site, *, fields)`.

    Only those that ran the last step are asked about the next one. A step is computed for the
    tokens that go, and for no others.

    Attributes:
        causal: whether no decision depends on a later token, in the mode at hand.
        batch_independent: whether none depends on another sequence of the batch.
        exact: whether in training the shares that are meant are those that run.
        waits: why the host waits for an accelerator before a step.
        limit: steps that are run at most, where fewer than in training; set by the recursion.
    """

    causal: bool = True
    batch_independent: bool = True
    exact: bool = False
    waits: str = "the data decide how many tokens run a step, and so the shapes"
    limit: int | None = None

    @abc.abstractmethod
    def route(
        self, x: Tensor, step: int, carried: State, length: int, real: Tensor | None
    ) -> Routed:
        """Decide for `x` (B, K, C) before `step` (from 0).

        Args:
            x: the tokens that ran the last step, in order; all at step 0.
            step: of the recursion.
            carried: what `route` returned for these tokens at the last step; empty at step 0.
            length: tokens of a sequence, those that have left among them.
            real: (B, K), False where a sequence was filled up because another has more tokens.
        """

    @abc.abstractmethod
    def merge(self, x: Tensor, y: Tensor, step: int, carried: State) -> Tensor:
        """The new state (B, K, C) of tokens that ran `step`, from the state before, and its result.

        What it returns at a token's last step is what leaves the recursion.
        """

    @abc.abstractmethod
    def shares(self) -> Sequence[float]:
        """The share of tokens that is meant to run each step, for the counting of FLOPs."""
