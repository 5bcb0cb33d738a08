"""N-gram heads: what followed when the last few ids stood here before.

    y[t] = W [x[s + 1] for s in s_n(t) of each order n, then in s_n(s_n(t)), and so on]

with s_n(t) the latest s < t at which the n ids up to s are the n ids up to t; where there is none
the vector is zero. Softmax attention can learn such a lookup, as an induction head; here no score
is learnt, so that it works from the first step, and at any distance. Akyuerek et al. 2024 (arXiv
2401.12973, section 5) add such heads to several architectures, as means over all earlier places;
the latest alone is the match model of compressors (Mahoney 2005, PAQ).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from strawberry.contracts import Attention, Site, State, Use


class NGramHeads(Attention):
    """A lookup in the sequence itself, and a matrix over what it gives.

    `y_t = W [x_{s+1} | ...]` with one entry for each order n: s is the latest s < t at which
    the n ids up to s are the n ids up to t. Where there is none, the entry is zero.

    In the first block x is what each token is; in a later one what the model made of it there.

    Args:
        orders: how many ids must be the same, for each head.
        places: how many of the latest places each head looks at.
    """

    separates = True
    routable = False
    rewinds = True

    def __init__(
        self,
        site: Site,
        *,
        orders: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 2, 3),
        places: Annotated[int, Ge(1)] = 1,
    ) -> None:
        super().__init__()
        self.orders = orders
        self.places = places
        self.width = site.n_embd
        self.vocab_size = site.vocab_size
        heads = len(orders) * places
        self.out = site.projection("out", site.n_embd, heads * site.n_embd, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        assert use.tokens is not None
        tokens, line = self._line(x, use.tokens, use)
        T, L = x.shape[1], tokens.shape[1]
        place = latest(tokens, self.orders, self.vocab_size, use.documents)
        every = list(chain(place, self.places))
        rows = torch.arange(len(x), device=x.device)[:, None] * L
        heads = []
        for places in torch.cat(every, dim=1)[..., L - T :].unbind(1):
            after = line.flatten(0, 1).index_select(0, (rows + places + 1).flatten())
            heads.append(after.view(x.shape) * (places >= 0)[..., None])
        return self.out(torch.cat(heads, dim=-1), use)

    def _line(self, x: Tensor, tokens: Tensor, use: Use) -> tuple[Tensor, Tensor]:
        """The ids (B, L) and vectors (B, L, C) of all tokens up to these."""
        if use.state is None:
            return tokens, x
        end = use.offset + tokens.shape[1]
        use.state["tokens"][:, use.offset : end] = tokens
        use.state["x"][:, use.offset : end] = x
        return use.state["tokens"][:, :end], use.state["x"][:, :end].to(x.dtype)

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """Ids and vectors of all tokens."""
        return {
            "tokens": torch.zeros(batch, length, dtype=torch.int64, device=device),
            "x": torch.zeros(batch, length, self.width, device=device, dtype=dtype),
        }


def latest(
    tokens: Tensor, orders: tuple[int, ...], vocab_size: int, documents: Tensor | None = None
) -> Tensor:
    """s_n(t) for ids (B, T) and each order, (B, orders, T); -1 where there is none.

    The n-grams of a sequence are numbered, and those of n + 1 ids follow from the number of the
    first n and the last id: nothing is hashed. A gram is within a document.
    """
    B, T = tokens.shape
    first = torch.ones_like(tokens, dtype=torch.bool)
    first[:, 1:] = False if documents is None else documents[:, 1:] != documents[:, :-1]
    places = {}
    before = first.cumsum(1)  # a document's number, at first
    for order in range(1, max(orders) + 1):
        places[order], numbers = _repeats(before * vocab_size + tokens)
        # A number that no other place has is that of a gram which would begin before its document.
        alone = torch.arange(T, 2 * T, device=tokens.device).expand(B, T)
        before = torch.where(first, alone, numbers.roll(1, dims=1))
    return torch.stack([places[order] for order in orders], dim=1)


def chain(places: Tensor, length: int) -> Iterator[Tensor]:
    """The places (B, orders, T), their own earlier places, and so on; -1 where there is none."""
    for _ in range(length):
        yield places
        places = places.gather(2, places.clamp(min=0)).where(places >= 0, -1)


def _repeats(keys: Tensor) -> tuple[Tensor, Tensor]:
    """For keys (B, T): the latest earlier place of the same key, or -1, and a number below T."""
    ordered, order = keys.sort(dim=1, stable=True)
    same = ordered[:, 1:] == ordered[:, :-1]
    earlier = torch.full_like(keys, -1)
    earlier[:, 1:] = torch.where(same, order[:, :-1], -1)
    numbers = torch.zeros_like(keys)
    numbers[:, 1:] = (~same).cumsum(1)
    return earlier.scatter(1, order, earlier), numbers.scatter(1, order, numbers)
