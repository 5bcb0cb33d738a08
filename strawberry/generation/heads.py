"""Greedy decoding with the heads of an objective, which draft, and the model, which verifies.

As in `speculative`, the text is that of plain greedy decoding (Leviathan et al. 2023, arXiv
2211.17192, at temperature 0; heads that draft: Stern et al. 2018, arXiv 1811.03115).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from strawberry.contracts import (
    Attention,
    OwnBlock,
    Seen,
    State,
    States,
    Use,
    components,
    keeps_state,
)
from strawberry.errors import StrawberryError
from strawberry.generation.decode import sample_ids, without_gradients
from strawberry.generation.sampling import Sampling
from strawberry.model.own import BesideBlock
from strawberry.model.stack import CacheShape

if TYPE_CHECKING:
    from strawberry.model.cache import Cache
    from strawberry.model.language_model import LanguageModel


@dataclass(slots=True)
class Drafted:
    """How drafts fared.

    Attributes:
        passes: passes of the model.
        guessed: tokens that were drafted.
        right: those of them that the model confirmed.
    """

    passes: int = 0
    guessed: int = 0
    right: int = 0


def check_heads(model: LanguageModel) -> None:
    """Raises StrawberryError if the model has no heads that draft, or can't take drafts back."""
    if not model.objective.drafts:
        name = type(model.objective).__name__
        raise StrawberryError(f"the objective {name} has no heads that draft")
    for component in components(model.stack):
        stateful = isinstance(component, Attention) or keeps_state(component)
        if stateful and not component.rewinds:
            name = type(component).__name__
            raise StrawberryError(f"{name} can't truncate its cache after a rejected draft")
    if any(r.router is not None or r.loop is not None for r in model.stack.recursions()):
        raise StrawberryError("a router or a loop can't truncate its record after a rejected draft")


@torch.no_grad()
def speculate_by_heads(
    model: LanguageModel, prompt: Tensor, max_new_tokens: int, told: Drafted | None = None
) -> Iterator[int]:
    """Yield the likeliest ids after `prompt` (1, T); drafts are counted in `told`.

    Text beyond the model's window is decoded plainly. Raises as `check_heads`.
    """
    check_heads(model)
    drafts, told = model.objective.drafts, told or Drafted()
    length, limit = prompt.shape[1] + max_new_tokens, model.limit()
    if limit is not None and length + drafts > limit:
        plain = sample_ids(model, prompt, max_new_tokens, Sampling(0.0), torch.Generator())
        yield from (int(token) for token in plain)
        return
    text = _Text(model, length + drafts)
    fresh, guess, written = prompt, prompt[:, :0], 0
    while written < max_new_tokens:
        guess = guess[:, : max_new_tokens - written - 1]
        sure, likely = text.verify(torch.cat((fresh, guess), 1), guess)
        told.passes, told.guessed = told.passes + 1, told.guessed + guess.shape[1]
        told.right += len(likely) - 1
        yield from likely
        written += len(likely)
        fresh, guess = sure.following[:, -1:], model.objective.draft(sure)


class _Text:
    """One text, the model's cache of it, and those of the objective's blocks."""

    def __init__(self, model: LanguageModel, length: int) -> None:
        self.model = model
        self.room = CacheShape(1, length, model.device, next(model.parameters()).dtype)
        self.contexts = without_gradients(model)
        self.blocks: dict[OwnBlock, list[State]] = {}
        with self.contexts():
            self.cache: Cache = model.new_cache(1, length)

    def verify(self, ids: Tensor, guess: Tensor) -> tuple[_SeenText, list[int]]:
        """The sure ones of `ids` (1, T), of which the last are guesses; and the ids after them.

        The ids begin with the first guess that was confirmed, and end with a new one.
        """
        begin, count = self.cache.offset, guess.shape[1]
        with self.contexts():
            passed = self.model.run(ids, self.cache, (True, False, 0))
            likely = self.model.drawn(self.model.head_logits(passed.hidden)).argmax(-1)
        # The one time in a round that the host waits for the device.
        both: list[int] = torch.cat((guess[0], likely[0, -count - 1 :])).tolist()
        guessed, verified = both[:count], both[count:]
        right = 0
        while right < count and guessed[right] == verified[right]:
            right += 1
        sure = ids.shape[1] - count + right
        self.cache.offset = begin + sure
        states = States(passed.hidden[:, :sure], tuple(x[:, :sure] for x in passed.blocks))
        following = torch.cat((ids[:, 1:sure], likely[:, sure - 1 : sure]), 1)
        return _SeenText(self, states, following, ids[:, :sure], begin), verified[: right + 1]


class _SeenText(Seen):
    """The sure tokens of one pass."""

    def __init__(
        self, text: _Text, states: States, following: Tensor, ids: Tensor, begin: int
    ) -> None:
        self.text, self.states, self.following = text, states, following
        self.ids, self.begin = ids, begin

    def use(self) -> Use:
        """A use without a cache, that knows the positions."""
        model, end = self.text.model, self.begin + self.ids.shape[1]
        return Use(
            positions=torch.arange(self.begin, end, device=model.device),
            offset=self.begin,
            positional=model.positional,
            weights=model.weights,
            residual=model.residual,
            tokens=self.ids,
        )

    def run(self, block: OwnBlock, x: Tensor) -> Tensor:
        """With the cache of this block."""
        assert isinstance(block, BesideBlock)
        if block not in self.text.blocks:
            self.text.blocks[block] = block.new_states(self.text.room)
        y, _ = block(x, replace(self.use(), cache=self.text.blocks[block]))
        return y

    def embed(self, ids: Tensor) -> Tensor:
        """By the model's table."""
        model = self.text.model
        return model.embed(ids, model.use(ids))

    def likely(self, x: Tensor) -> Tensor:
        """By the last norm and the head."""
        model = self.text.model
        return model.drawn(model.head_logits(model.norm(x[:, -1]))).argmax(-1)
