"""Contracts of a block's parts and their surroundings: mixers, networks, norms, positions."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping

from torch import Tensor

from strawberry.contracts.component import Component, Place
from strawberry.contracts.terms import Aux
from strawberry.contracts.use import Use

PLACES: Mapping[Place, str] = {
    "embedding": "embed",
    "rotary": "rotate",
    "bias": "bias",
    "context": "relate",
}
"""The method of each place of a positional component."""


class Positional(Component, abc.ABC):
    """A positional component. Constructed with `(site, *, fields)`, a `PositionalSite`.

    Scores that fade with the distance:

        class Fading(Positional):
            places = frozenset(["bias"])

            def bias(self, n_head, queries, keys):
                distance = (queries[:, None] - keys).abs()
                return -0.1 * distance.expand(n_head, -1, -1)

    Attributes:
        places: its methods: `embedding` for `embed`, `rotary` for `rotate`, `bias` for `bias`,
            `context` for `relate`; the others are never called.
    """

    places: frozenset[Place] = frozenset()

    @classmethod
    def asked(cls) -> Iterator[tuple[str, str]]:
        """The methods that what it declares asks for, each with the reason."""
        for place in sorted(cls.places):
            yield PLACES[place], f"its places have {place!r}"

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

    def relate(
        self, q: Tensor, k: Tensor, own: Tensor, use: Use
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries, keys and what is added to their scores, where positions depend on the text.

        Nothing may depend on keys after a query's own, nor on keys before the first of two that
        are compared: a window's cache has no others.

        Args:
            q: queries (B, H, T, D).
            k: keys (B, G, S, D), all so far, as the cache holds them; H is a multiple of G.
            own: index of each query's own key, (T,) or (B, T).
            use: of this pass.

        Returns:
            Queries and keys of the same shapes, and scores (B, H, T, S) or None.
        """
        raise NotImplementedError


class Attention(Component, abc.ABC):
    """A token mixer (B, T, C) -> (B, T, C). Constructed with `(site, *, fields)`, a `Site`.

    The block around it normalises its input and adds its output to the residual stream. For any
    split of a sequence into cached calls, the results equal those of one call without a cache. The
    mean of the tokens so far:

        class Mean(Attention):
            def __init__(self, site):
                super().__init__()
                self.width = site.n_embd
                self.out = site.projection("out", site.n_embd, site.n_embd, output=True)

            def forward(self, x, use):
                total = x.cumsum(1)
                if use.state is not None:
                    total = total + use.state["total"]
                    use.state["total"].copy_(total[:, -1:])
                count = use.offset + torch.arange(1, x.shape[1] + 1, device=x.device)
                return self.out(total / count[:, None], use)

            def new_state(self, batch, length, device, dtype):
                return {"total": torch.zeros(batch, 1, self.width, device=device, dtype=dtype)}

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

    Constructed with `(site, *, fields)`, a `Site`. A network with squared activations:

        class Squared(FFN):
            def __init__(self, site):
                super().__init__()
                self.up = site.projection("up", 4 * site.n_embd, site.n_embd)
                self.down = site.projection("down", site.n_embd, 4 * site.n_embd, output=True)

            def forward(self, x, use):
                return self.down(self.up(x, use).relu().square(), use)

    A network that looks back, as a token shift does, stores what it needs of earlier tokens in a
    state, like a mixer, and declares whether it `separates` documents.
    """

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor | tuple[Tensor, Aux]:
        """Transform (B, T, C); with `use.state`, continue after `use.offset` tokens."""


class Norm(Component, abc.ABC):
    """A normalisation over the last dimension.

    Constructed with `(site, *, fields)`, a `NormSite`. To length sqrt(features):

        class Length(Norm):
            def forward(self, x):
                return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5
    """

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., site.features) -> the same shape."""
