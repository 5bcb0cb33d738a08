"""How the next token is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from strawberry.errors import StrawberryError

_COLDEST: Final = 1e-30
"""What float32 can still divide by."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: by default as often as the model thinks.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: only the k most likely; None for all.
        top_p: only the most likely whose probabilities sum to p; None for all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def check(self) -> None:
        """Raises StrawberryError if a value makes no sense."""
        if not 0 <= self.temperature < math.inf:
            raise StrawberryError(f"temperature {self.temperature:g} is not 0 or above, and finite")
        if self.top_k is not None and self.top_k < 1:
            raise StrawberryError(f"top-k {self.top_k} is below 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise StrawberryError(f"top-p {self.top_p:g} is not above 0 and at most 1")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, V) -> probabilities (B, V); ties at the edge of top-k all stay."""
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

    def choose(self, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Logits (B, V) -> ids (B,); one generator for all rows, or one for each."""
        if self.temperature == 0:
            return logits.argmax(-1)
        chances = self.probabilities(logits)
        # As torch.multinomial draws one, but it has the host look whether chances are chances.
        waits = torch.empty_like(chances)
        parts = waits.chunk(len(generators))
        for part, generator in zip(parts, generators, strict=True):
            part.exponential_(generator=generator)
        return (chances / waits).argmax(-1)


SHOWN: Final = Sampling(temperature=0.6, top_p=0.95)
"""What shows a small model at its best, and so what `generate` does unless it is told otherwise."""
