"""One use of a component in one pass: values of the use, not of a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from strawberry.contracts.mixing import Positional
    from strawberry.contracts.stream import Residual
    from strawberry.contracts.weights import WeightSource

State: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """Keys and values of a recursion's first step, which its later steps reuse.

    Attributes:
        store: the blocks' keys and values, by their slot within a step.
        first_slot: the slot of the first block in the current step.
        later: True in a later step, where keys and values are reused, not computed.
        tokens: number T0 of tokens of this pass in the first step.
        places: index of each token among those T0 tokens, (B, T); None if they are the same.
        documents: the documents of the T0 tokens, (B, T0), or None.
    """

    store: dict[int, State]
    first_slot: int
    later: bool
    tokens: int
    places: Tensor | None = None
    documents: Tensor | None = None


@dataclass(slots=True)
class Watch:
    """The states of a pass that an objective requested.

    Attributes:
        blocks: the stream after each block use so far; None if nobody asked.
        steps: the stream after each step of outermost recursions so far; None if nobody asked.
        cut: after each so many steps of an outermost recursion no gradient flows back; 0 for never.
    """

    blocks: list[Tensor] | None = None
    steps: list[Tensor] | None = None
    cut: int = 0

    def after_block(self, x: Tensor) -> None:
        """Take the stream (B, T, C) after a block."""
        if self.blocks is not None:
            self.blocks.append(x)

    def after_step(self, x: Tensor, step: int) -> bool:
        """Take the stream (B, T, C) after a step, from 0; whether to cut off its gradient."""
        if self.steps is not None:
            self.steps.append(x)
        return self.cut > 0 and (step + 1) % self.cut == 0


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a component in one pass.

    Attributes:
        positions: position of each token in its sequence, (T,) int64; (B, T) if sequences differ:
            inside a routed recursion, and if each document has its own positions.
        offset: number of tokens already in the cache; 0 without a cache.
        steps: the enclosing recursion steps, outermost first.
        state: the state of this block use between calls, or None without a cache.
        positional: the current positional component.
        weights: the current weight source.
        memo: values computed once for these tokens and used by several blocks, such as masks.
        once: values computed once in a pass, independent of tokens, such as derived weights.
        cache: the states of all block uses; a block takes its own from it.
        tokens: the token ids themselves, (B, T) int64.
        inputs: what the embedding gives blocks beside the stream, (B, T, ...) by name.
        documents: the document number of each token, (B, T), if attention is restricted to
            documents; else None. Never set with a cache.
        key_positions: positions of all keys so far, (B, S), if they are not consecutive.
        shared: keys and values of the first step, if the steps of a recursion share them.
        kept: this part's share of it; for a block, those of its parts by name.
        watch: what an objective sees of this pass; None within a block, and where nobody asked.
        residual: the residual component of the model.
        states: the states of the pieces of this block, by name; each has its own in `state`.
    """

    positions: Tensor
    offset: int
    positional: Positional
    weights: WeightSource
    steps: tuple[int, ...] = ()
    state: State | None = None
    memo: dict[Any, Any] = field(default_factory=dict)
    once: dict[Any, Any] = field(default_factory=dict)
    cache: Sequence[State] | None = None
    tokens: Tensor | None = None
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    documents: Tensor | None = None
    key_positions: Tensor | None = None
    shared: SharedKeys | None = None
    kept: State | None = None
    watch: Watch | None = None
    residual: Residual | None = None
    states: Mapping[str, State] | None = None

    def rotate(self, x_BHTD: Tensor) -> Tensor:
        """Rotate queries or keys by their positions, if the positional component rotates."""
        if "rotary" not in self.positional.places:
            return x_BHTD
        return self.positional.rotate(x_BHTD, self)

    def bias(self, n_head: int, n_keys: int) -> Tensor | None:
        """Additive scores (H, T, n_keys) for these queries, or None; (B, H, T, n_keys) if routed.

        The keys are the last `n_keys` positions up to that of the last query.
        """
        if "bias" not in self.positional.places:
            return None
        keys = self.key_positions
        if keys is None:
            # Consecutive tokens. Documents' own positions have the same distances, where it counts.
            last = self.offset + self.positions.shape[-1]
            every = torch.arange(last, device=self.positions.device)
            queries = every[self.offset :]
            return self.positional.bias(n_head, queries, every[last - n_keys :])
        rows = zip(self.positions.expand(len(keys), -1), keys[:, -n_keys:], strict=True)
        return torch.stack([self.positional.bias(n_head, q, k) for q, k in rows])

    def relate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries (B, H, T, D) and keys (B, G, S, D) as a positional component of the text says.

        The third result is added to the scores, (B, H, T, S); None for nothing. The keys are all
        that the queries may see, as the cache holds them.
        """
        if "context" not in self.positional.places:
            return q, k, None
        T, S = q.shape[2], k.shape[2]
        own = torch.arange(S - T, S, device=q.device)
        if self.shared is not None and self.shared.later and self.shared.places is not None:
            own = self.shared.places + (S - self.shared.tokens)
        return self.positional.relate(q, k, own, self)

    def at(self, step: int) -> Use:
        """The same use, one recursion deeper, at `step` (from 0)."""
        return replace(self, steps=(*self.steps, step))
