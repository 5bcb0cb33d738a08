"""Modifications of the scores of causal attention, for every implementation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from strawberry.contracts import Use


@dataclass(frozen=True, slots=True)
class Scores:
    """Modifications of the scores of causal attention.

    Attributes:
        bias: added to the scores, (H, T, S) or (B, H, T, S); None for none.
        window: number of tokens that a query sees, including itself; None for all.
        windows: the same for each single query, (B, H, T), at most `window`; or None.
        documents: the document of each token, (B, T); only tokens of the same document see each
            other; needs T = S, or `key_documents`.
        key_documents: documents of the keys, (B, S), if the queries are not the last of them.
        places: index of each query's own key, (B, T), if they are not the last ones in order.
        sink: score of an additional key with a zero value, (H,).
        scale: factor on the products of queries and keys; None for D^-0.5.
        dropout: probability of dropping a weight.
        causal: whether a query sees no later key; else a window reaches as far ahead as back.
        memo: stores a mask that several blocks need during the pass.
    """

    bias: Tensor | None = None
    window: int | None = None
    windows: Tensor | None = None
    documents: Tensor | None = None
    key_documents: Tensor | None = None
    places: Tensor | None = None
    sink: Tensor | None = None
    scale: float | None = None
    dropout: float = 0.0
    causal: bool = True
    memo: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        use: Use,
        n_keys: int,
        *,
        n_head: int | None = None,
        added: Tensor | None = None,
        **changes: Any,
    ) -> Scores:
        """The scores of a use over `n_keys` keys: bias (for `n_head` heads), documents, places.

        `added` (B, H, T, S) comes to the bias.
        """
        places = key_documents = None
        if use.shared is not None and use.shared.later:
            key_documents = use.shared.documents
            if use.shared.places is not None:
                places = use.shared.places + (n_keys - use.shared.tokens)
        bias = None if n_head is None else use.bias(n_head, n_keys)
        if added is not None:
            bias = added if bias is None else bias + added
        return cls(
            bias=bias,
            documents=use.documents,
            key_documents=key_documents,
            places=places,
            memo=use.memo,
            **changes,
        )

    def plain(self, T: int, S: int) -> bool:
        """True if nothing but causality, or nothing at all, applies."""
        windowed = self.window is not None and self.window < S
        changed = (self.bias, self.windows, self.documents, self.places, self.sink)
        return T in {1, S} and not windowed and all(one is None for one in changed)
