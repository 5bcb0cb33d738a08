"""Contracts of a block's parts and their surroundings: mixers, networks, norms, positions."""

from __future__ import annotations

import abc

from torch import Tensor

from strawberry.contracts.component import Component, Place
from strawberry.contracts.terms import Aux
from strawberry.contracts.use import Use


class Positional(Component, abc.ABC):
    """A positional component. Constructed with `(site, *, fields)`, a `PositionalSite`.

    Attributes:
        places: its methods: `embedding` for `embed`, `rotary` for `rotate`, `bias` for `bias`; the
            others are never called.
    """

    places: frozenset[Place] = frozenset()

    def check(self, n_head: int, width: int) -> None:
        """Raises ValueError if it doesn't support heads of that number and width."""

    def embed(self, positions: Tensor) -> Tensor:
        """(T,) positions -> (T, C), added to the token embeddings."""
        raise NotImplementedError

    def rotate(self, x_BHTD: Tensor, use: Use) -> Tensor:
        """Queries or keys (B, H, T, D), rotated by `use.positions`."""
        raise NotImplementedError

    def bias(self, n_head: int, queries: Tensor, keys: Tensor) -> Tensor:
        """(H, Tq, Tk) added to the scores; `queries` and `keys` are positions.

        It may depend only on their distance.
        """
        raise NotImplementedError


class Attention(Component, abc.ABC):
    """A token mixer (B, T, C) -> (B, T, C). Constructed with `(site, *, fields)`, a `Site`.

    The block around it normalises its input and adds its output to the residual stream. For any
    split of a sequence into cached calls, the results equal those of one call without a cache.

    Attributes:
        separates: whether it separates documents by `use.documents`; without a declaration, it
            doesn't.
    """

    separates: bool = False

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """Mix (B, T, C); with `use.state`, continue after `use.offset` tokens, and update it."""


class FFN(Component, abc.ABC):
    """A network applied to each token, (B, T, C) -> (B, T, C).

    Constructed with `(site, *, fields)`, a `Site`.

    A network that looks back, as a token shift does, stores what it needs of earlier tokens in a
    state, like a mixer, and declares whether it `separates` documents.
    """

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """Transform (B, T, C); with `use.state`, continue after `use.offset` tokens."""


class Norm(Component, abc.ABC):
    """A normalisation over the last dimension.

    Constructed with `(site, *, fields)`, a `NormSite`.
    """

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., site.features) -> the same shape."""
