"""Sampling of the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from strawberry.data.opening import data_source
from strawberry.errors import StrawberryError

if TYPE_CHECKING:
    from strawberry.recipe.spec import Recipe

_COLDEST: Final = 1e-30
"""The smallest divisor that float32 supports."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings; the default samples from the model's distribution.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: sample from the k most likely tokens; None for all.
        top_p: sample from the most likely tokens with total probability p; None for all.
        no_repeat: never sample a token that would repeat a run of this many (Paulus et al. 2017,
            arXiv 1705.04304, section 2.5), which keeps a small model out of loops; None allows it,
            and so does temperature 0.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    no_repeat: int | None = None

    def check(self) -> None:
        """Raises StrawberryError for an invalid value."""
        if not 0 <= self.temperature < math.inf:
            raise StrawberryError(
                f"temperature must be finite and at least 0, got {self.temperature:g}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise StrawberryError(f"top-k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise StrawberryError(f"top-p must be above 0 and at most 1, got {self.top_p:g}")
        if self.no_repeat is not None and self.no_repeat < 2:
            raise StrawberryError(f"no-repeat must be at least 2, got {self.no_repeat}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, V) -> probabilities (B, V); ties at the boundary of top-k all stay."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        # From the largest one: divided by a small number, the others alone become infinite.
        logits = (logits - logits.amax(-1, keepdim=True)) / max(self.temperature, _COLDEST)
        if self.top_k is not None:
            edge = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < edge, float("-inf"))
        if self.top_p is not None:
            ordered, order = logits.softmax(-1).sort(dim=-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p  # the first one always stays
            logits = logits.masked_fill(
                torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf")
            )
        return logits.softmax(-1)

    def choose(self, logits: Tensor, generators: Sequence[torch.Generator], ids: Tensor) -> Tensor:
        """Logits (B, V) after `ids` (B, T) -> ids (B,); one generator for all rows, or for each."""
        if self.temperature == 0:
            return logits.argmax(-1)
        if self.no_repeat is not None:
            logits = without_repeats(logits, ids, self.no_repeat)
        chances = self.probabilities(logits)
        # As torch.multinomial draws one, but it has the host look whether chances are chances.
        waits = torch.empty_like(chances)
        parts = waits.chunk(len(generators))
        for part, generator in zip(parts, generators, strict=True):
            part.exponential_(generator=generator)
        return (chances / waits).argmax(-1)


def without_repeats(logits: Tensor, ids: Tensor, length: int) -> Tensor:
    """Logits (B, V) in which tokens that would repeat `length` of the ids (B, T) are -inf.

    A row in which no token would be left stays as it is.
    """
    if ids.shape[1] < length:
        return logits
    runs = ids.unfold(1, length, 1)
    same = (runs[..., :-1] == ids[:, None, 1 - length :]).all(-1)
    after = runs[..., -1].clamp(max=logits.shape[-1])  # a token that is never sampled is the last
    count = logits.new_zeros(len(logits), logits.shape[-1] + 1).scatter_add(
        1, after, same.to(logits.dtype)
    )
    repeats = count[:, :-1] > 0
    left = (logits > float("-inf")) & ~repeats
    return logits.masked_fill(repeats & left.any(-1, keepdim=True), float("-inf"))


def sampling_for(
    recipe: Recipe,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    no_repeat: int | None = None,
) -> Sampling:
    """Settings of `generate`; None takes that of the data source, or all of the top-k.

    0 for `no_repeat` allows repeats.
    """
    source = data_source(recipe)
    return Sampling(
        source.temperature if temperature is None else temperature,
        top_k,
        source.top_p if top_p is None else top_p,
        (source.no_repeat if no_repeat is None else no_repeat) or None,
    )
