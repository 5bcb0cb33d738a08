"""The embedding: from token ids to the vectors that enter the first block.

B batch, T tokens, C model width, V vocabulary, E width of the table.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from strawberry.contracts.component import Component
from strawberry.contracts.numbers import draw
from strawberry.contracts.parametrization import Initial, Parametrization, Weight
from strawberry.contracts.use import State, Use


@dataclass(frozen=True, slots=True)
class EmbeddingSite:
    """The site of an embedding.

    Attributes:
        n_embd: model width C.
        vocab_size: number of token ids V.
        block_size: longest training sequence, in tokens.
        depth: unrolled depth of the model, in blocks.
        n_blocks: number of blocks; a recurring one is one.
        parametrization: how tensors start; `table` asks it.
        make_component: builds a nested component, for `component`.
    """

    n_embd: int
    vocab_size: int
    block_size: int
    depth: int
    n_blocks: int
    parametrization: Parametrization
    make_component: Callable[[Any, EmbeddingSite], Any]

    def table(self, rows: int, width: int, *, zero: bool = False) -> nn.Parameter:
        """A table (rows, width) at the parametrization's start, or of zeros."""
        grows = (False, width >= self.n_embd)
        weight = Weight("embedding", "embedding", 1, width, grows=grows, in_block=False)
        initial = Initial(0.0) if zero else self.parametrization.initial(weight)
        parameter = nn.Parameter(torch.empty(rows, width))
        draw(parameter, initial.std, uniform=initial.uniform)
        return parameter

    def component(self, spec: Any) -> Any:
        """A nested embedding: the value of a field declared with `Kind("embedding")`."""
        return self.make_component(spec, self)


class Embedding(Component, abc.ABC):
    """Token ids to vectors. Constructed with `(site, *, fields)`, an `EmbeddingSite`.

    A table of vectors twice as long:

        class Doubled(Embedding):
            parameter_kinds = {"weight": "embedding"}

            def __init__(self, site):
                super().__init__()
                self.weight = site.table(site.vocab_size, site.n_embd)

            @property
            def table(self):
                return self.weight

            def forward(self, ids, use):
                return 2 * self.weight[ids]

    It may look at earlier tokens, and keep a state between cached calls by `new_state`; `history`
    does both.
    """

    @abc.abstractmethod
    def forward(self, ids: Tensor, use: Use) -> Tensor:
        """(B, T) -> (B, T, C)."""

    @property
    def table(self) -> Tensor | None:
        """The matrix (V, E) of a head that is tied to it; None if none can be."""
        return None

    def before_head(self, hidden: Tensor) -> Tensor:
        """What a tied head multiplies with its matrix: hidden states (..., C) -> (..., E)."""
        return hidden

    def inputs(self, ids: Tensor, x: Tensor, use: Use) -> Mapping[str, Tensor]:
        """What blocks may read beside the stream, in `use.inputs`: (B, T, ...) by name.

        Args:
            ids: (B, T).
            x: the embeddings (B, T, C).
            use: of this pass.
        """
        return {}

    def input_widths(self) -> Mapping[str, int]:
        """The last dimension of each of `inputs`; a block that reads another one is refused."""
        return {}


class WrappedEmbedding(Embedding):
    """An embedding around another one, `base`, whose head, inputs and state it has.

    A subclass with an input or a state of its own adds it to its base's: the names must differ.
    """

    def __init__(self, base: Embedding) -> None:
        super().__init__()
        self.base = base

    @property
    def table(self) -> Tensor | None:
        """That of the base."""
        return self.base.table

    def before_head(self, hidden: Tensor) -> Tensor:
        """As of the base."""
        return self.base.before_head(hidden)

    def inputs(self, ids: Tensor, x: Tensor, use: Use) -> Mapping[str, Tensor]:
        """Those of the base."""
        return self.base.inputs(ids, x, use)

    def input_widths(self) -> Mapping[str, int]:
        """Those of the base."""
        return self.base.input_widths()

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """That of the base."""
        return self.base.new_state(batch, length, device, dtype)


def history(ids: Tensor, use: Use, count: int) -> Tensor:
    """Each token and the `count` tokens before it, the nearest first: (B, T, count + 1).

    -1 stands for what lies before the sequence, or in another document. With a cache, earlier
    tokens are read from `use.state["history"]`, which `new_history` makes, and new ones are written
    there.
    """
    T, before = ids.shape[1], ids.new_full((len(ids), count), -1)
    documents = use.documents
    if use.state is not None:
        kept = use.state["history"]
        kept[:, use.offset : use.offset + T] = ids
        if first := min(count, use.offset):
            before = torch.cat([before[:, first:], kept[:, use.offset - first : use.offset]], 1)
    every = torch.cat([before, ids], 1)
    seen = torch.stack([every[:, count - back : count - back + T] for back in range(count + 1)], -1)
    if documents is None or not count:
        return seen
    outside = documents.new_full((len(ids), count), -1)
    own = torch.cat([outside, documents], 1)
    theirs = [own[:, count - back : count - back + T] for back in range(count + 1)]
    return seen.where(torch.stack(theirs, -1) == documents[..., None], -1)


def new_history(batch: int, length: int, device: torch.device) -> State:
    """The state that `history` keeps: the token ids so far."""
    return {"history": torch.full((batch, length), -1, dtype=torch.int64, device=device)}
