"""The parts of a block and what is in force around it: mixers, networks, norms, positions."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from strawberry.contracts.terms import Aux
from strawberry.contracts.use import State, Use
from strawberry.contracts.weights import Bank, Projection

Place: TypeAlias = Literal["embedding", "rotary", "bias"]


class Positional(nn.Module, abc.ABC):
    """Where order comes from. Constructed with `(n_embd, block_size, *, fields)`.

    `places` says which of the three methods it has; the others are never called.
    """

    places: ClassVar[frozenset[Place]] = frozenset()

    def check(self, n_head: int, width: int) -> None:
        """Raises ValueError if it can't serve heads of that number and width."""

    def embed(self, positions: Tensor) -> Tensor:
        """(T,) positions -> (T, C), added to the token embeddings."""
        raise NotImplementedError

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        """Queries or keys (B, H, T, D), rotated by `use.positions`."""
        raise NotImplementedError

    def bias(self, n_head: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(H, Tq, Tk) added to the scores; `queries` and `keys` are positions.

        It may depend on their distance alone.
        """
        raise NotImplementedError

    def limit(self) -> int | None:
        """The longest sequence that it can place, or None if there is no limit."""
        return None


class Attention(nn.Module, abc.ABC):
    """A token mixer (B, T, C) -> (B, T, C). Constructed with `(site, *, fields)`.

    The block around it normalises its input and adds its output to the residual stream. A cached
    call gives, for any split of a sequence into calls, what one call without a cache gives.

    Attributes:
        causal: whether no output depends on a later token.
        batch_independent: whether no output depends on another sequence of the batch.
        stateless: whether no output depends on an earlier batch.
        cacheable: whether it has a decoding state; without one `new_state` is never called, and
            generation computes the whole sequence for each token.
        honours: the places of a positional component that it reads.
        separates: whether it keeps documents apart, by `use.documents`.
        routable: whether it can mix some of the tokens alone, with positions that leave some out.
        shares_keys: whether it can use the keys and values of an earlier step, by `use.shared`.
        rewinds: whether its decoding state serves for fewer tokens too: what lies past
            `use.offset` is not read, and the next call writes over it.
        exact_gradient: whether its gradient is the slope of its output; False where it stops or
            estimates one on purpose.
    """

    causal: ClassVar[bool] = True
    batch_independent: ClassVar[bool] = True
    stateless: ClassVar[bool] = True
    cacheable: ClassVar[bool] = True
    honours: ClassVar[frozenset[Place]] = frozenset()
    separates: ClassVar[bool] = False
    routable: ClassVar[bool] = True
    shares_keys: ClassVar[bool] = False
    rewinds: ClassVar[bool] = False
    exact_gradient: ClassVar[bool] = True

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """Mix; with `use.state`, continue after `use.offset` tokens and update the state."""

    def limit(self) -> int | None:
        """The longest sequence that it can mix, or None if there is no limit."""
        return None

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Named tensors kept between cached calls, for up to `length` tokens."""
        raise NotImplementedError


class FFN(nn.Module, abc.ABC):
    """A position-wise network (B, T, C) -> (B, T, C). Constructed with `(site, *, fields)`."""

    causal: ClassVar[bool] = True
    batch_independent: ClassVar[bool] = True
    stateless: ClassVar[bool] = True

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """Transform each token by itself."""


class Norm(nn.Module, abc.ABC):
    """A normalisation over the last dimension. Constructed with `(features, *, fields)`."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., features)."""


@dataclass(frozen=True, slots=True)
class Site:
    """The place where a component is being built.

    Attributes:
        n_embd: model width C.
        vocab_size: number of token ids V.
        block_size: longest training sequence.
        dropout: the recipe's dropout probability; the block drops residual outputs itself.
        bias: whether the recipe wants additive biases.
        depth: unrolled depth of the whole model, in blocks.
        projection: `projection(name, out_features, in_features, *, output=False, parts=None)`
            gives the matrix of that name from the weight source; `output` marks one that writes to
            the residual stream, and `parts` says which matrices its rows are, if several: `{"q":
            64, "k": 64}`, with heads `{"q": (4, 16), "k": (4, 16)}`, or `interleaved(...)`.
        bank: `bank(name, experts, out_features, in_features, *, output=False, parts=None)` gives a
            stack of such matrices, one for each expert.
        norm: `norm(features)` gives the recipe's normalisation, such as for QK-norm.
        component: builds a nested component (a field declared with `ComponentOf(kind)`).
        positional: the positional component in force here.
    """

    n_embd: int
    vocab_size: int
    block_size: int
    dropout: float
    bias: bool
    depth: int
    projection: Callable[..., Projection]
    bank: Callable[..., Bank]
    norm: Callable[[int], nn.Module]
    component: Callable[[Any], Any]
    positional: Positional
