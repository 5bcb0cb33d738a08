"""The ends of a model: the embedding's site, and the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from strawberry.contracts import EmbeddingSite, Initial, Parametrization, Weight, draw

if TYPE_CHECKING:
    from strawberry.recipe.spec import ModelSpec


class Ends:
    """What a parametrization makes of the table of embeddings and of the head."""

    def __init__(self, spec: ModelSpec, parametrization: Parametrization) -> None:
        self.spec = spec
        self.parametrization = parametrization

    def site(
        self, depth: int, n_blocks: int, make_component: Callable[[Any, Any], Any]
    ) -> EmbeddingSite:
        """The site of the embedding."""
        spec = self.spec
        return EmbeddingSite(
            n_embd=spec.n_embd,
            vocab_size=spec.vocab_size,
            block_size=spec.block_size,
            depth=depth,
            n_blocks=n_blocks,
            parametrization=self.parametrization,
            make_component=make_component,
        )

    def head(self) -> nn.Linear:
        """An untied head (V, C)."""
        head = nn.Linear(self.spec.n_embd, self.spec.vocab_size, bias=False)
        initial = self._start("head")
        draw(head.weight, initial.std, uniform=initial.uniform)
        return head

    def multipliers(self) -> tuple[float, float]:
        """Factors on the embeddings, and on what the head reads."""
        return self._start("embedding").multiplier, self._start("head").multiplier

    def _start(self, kind: str) -> Initial:
        vocabulary, width = self.spec.vocab_size, self.spec.n_embd
        fans = (1, width) if kind == "embedding" else (width, vocabulary)
        grows = kind == "head", kind == "embedding"
        return self.parametrization.initial(Weight(kind, kind, *fans, grows=grows, in_block=False))
