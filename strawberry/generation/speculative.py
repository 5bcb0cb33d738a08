"""Self-speculative greedy decoding: a few recursion steps, or blocks, draft, and all verify.

The model with fewer steps, or with fewer blocks where an objective taught exits after them, is a
cheaper model that shares every weight. It drafts a few tokens, and
one pass at full depth verifies all of them. Correct tokens are kept, and the first wrong one is
replaced (Leviathan et al. 2023, arXiv 2211.17192, at temperature 0). The text equals that of plain
greedy decoding, with fewer passes at full depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from strawberry.contracts import Attention, components, keeps_state
from strawberry.errors import StrawberryError
from strawberry.generation.decode import sample_ids, without_gradients
from strawberry.generation.sampling import Sampling

if TYPE_CHECKING:
    from strawberry.model.cache import Cache
    from strawberry.model.language_model import LanguageModel

DRAFTED: Final = 4
"""Number of tokens in a draft."""


def check_draft(model: LanguageModel, draft_steps: int) -> None:
    """Raises StrawberryError if the model can't draft with this many steps."""
    outermost = model.stack.outermost()
    if not outermost:
        raise StrawberryError("this model has no recursion, so it can't draft with fewer steps")
    depth = max(recursion.steps for recursion in outermost)
    if not 0 < draft_steps < depth:
        raise StrawberryError(f"draft steps must be between 1 and {depth - 1}, got {draft_steps}")
    _check_cache(model)
    if any(recursion.router is not None for recursion in model.stack.recursions()):
        raise StrawberryError("a router decides each token's depth, so there is no draft depth")


def check_exit(model: LanguageModel) -> None:
    """Raises StrawberryError if the model can't draft with its first blocks."""
    depth, name = model.objective.draft_depth, type(model.objective).__name__
    if not depth:
        raise StrawberryError(f"the objective {name} has no heads that draft")
    if depth >= model.stack.depth:
        raise StrawberryError(f"{name} drafts with {depth} nodes; {model.stack.depth} run")
    _check_cache(model)


def _check_cache(model: LanguageModel) -> None:
    """Raises StrawberryError if a cache can't be truncated."""
    for component in components(model):
        stateful = isinstance(component, Attention) or keeps_state(component)
        if stateful and not component.rewinds:
            name = type(component).__name__
            raise StrawberryError(f"{name} can't truncate its cache after a rejected draft")


@torch.no_grad()
def speculate(
    model: LanguageModel, prompt: Tensor, max_new_tokens: int, draft_steps: int | None = None
) -> Iterator[int]:
    """Yield the most likely ids after `prompt` (1, T).

    Drafts come from `draft_steps` recursion steps, or without them from as many nodes of the stack
    as the objective says. Text beyond the model's window is decoded plainly. Raises as
    `check_draft` and `check_exit`.
    """
    if draft_steps is None:
        check_exit(model)
    else:
        check_draft(model, draft_steps)
    length, limit = prompt.shape[1] + max_new_tokens, model.limit()
    if limit is not None and length + DRAFTED > limit:
        plain = sample_ids(model, prompt, max_new_tokens, Sampling(0.0), torch.Generator())
        yield from (int(token) for token in plain)
        return
    text = torch.empty(1, length + DRAFTED, dtype=torch.long, device=prompt.device)
    text[:, : prompt.shape[1]] = prompt
    nodes = model.objective.draft_depth if draft_steps is None else model.stack.depth
    full = _Depth(model, length + DRAFTED, model.stack.depth)
    draft = _Depth(model, length + DRAFTED, nodes, draft_steps)
    here = prompt.shape[1]
    while here < length:
        end = here + min(DRAFTED, length - here - 1)  # of what is guessed
        for at in range(here, end):
            text[:, at : at + 1] = draft.likely(text[:, :at], 1)
        likely = full.likely(text[:, :end], end - here + 1)
        # The one time in a round that the host waits for the device.
        both: list[int] = torch.cat((text[0, here:end], likely[0])).tolist()
        guessed, verified = both[: end - here], both[end - here :]
        right = 0
        while right < len(guessed) and guessed[right] == verified[right]:
            right += 1
        text[:, here : here + right + 1] = likely[:, : right + 1]
        here += right + 1
        for depth in (full, draft):
            depth.cache.offset = min(depth.cache.offset, here - 1)
        yield from verified[: right + 1]


class _Depth:
    """The model with its first nodes and so many recursion steps at most; with its own cache."""

    def __init__(
        self, model: LanguageModel, length: int, nodes: int, steps: int | None = None
    ) -> None:
        self.model = model
        self.nodes = nodes
        self.steps = steps
        self._without_gradients = without_gradients(model)
        with self._set(), self._without_gradients():
            self.cache: Cache = model.new_cache(1, length)

    def likely(self, ids: Tensor, count: int) -> Tensor:
        """The most likely id after each of the last `count` of (1, T): (1, count).

        Afterwards the cache contains all of them.
        """
        with self._set(), self._without_gradients():
            hidden, _ = self.model.trunk(ids[:, self.cache.offset :], self.cache)
        logits = self.model.head_logits(hidden[:, -count:])
        return self.model.drawn(logits).argmax(-1)

    @contextmanager
    def _set(self) -> Iterator[None]:
        """In this context the model has this depth."""
        stack = self.model.stack
        recursions = [] if self.steps is None else stack.outermost()
        before = stack.depth, [recursion.steps for recursion in recursions]
        try:
            stack.set_depth(self.nodes)
            for recursion in recursions:
                recursion.set_steps(min(self.steps or recursion.steps, recursion.steps))
            yield
        finally:
            stack.set_depth(before[0])
            for recursion, steps in zip(recursions, before[1], strict=True):
                recursion.set_steps(steps)
