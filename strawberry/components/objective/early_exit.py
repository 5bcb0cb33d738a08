"""Losses of blocks before the last (Elhoushi et al. 2024, LayerSkip, arXiv 2404.16710, 4.1.2)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite
from strawberry.errors import FieldError


class EarlyExit(Objective):
    """Every block's state, through the last norm and the head, predicts the next token.

    `L = sum_l e(l) L_l / sum_l e(l)` over the exits and the last block, with `e(l) = scale * sum_{i
    <= l} i` for block l = 0 ... N - 2, and `e(N - 1) = N - 1 + scale * sum_{i <= N - 2} i`.

    Args:
        scale: how much early exits count.
        every: an exit after each so many blocks, counted from the last; the paper takes them by
            turns over the steps.
        draft: blocks that draft in `generate --draft-heads`; null takes those before
            the first exit in the upper half. Nothing drafts if the stack recurs.
    """

    def __init__(
        self,
        site: ObjectiveSite,
        *,
        scale: Annotated[float, Ge(0)] = 0.2,
        every: Annotated[int, Ge(1)] = 1,
        draft: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        super().__init__()
        if site.n_blocks < 3:
            raise FieldError("", "an exit needs a stack of at least 3 blocks")
        self.scale, self.every = scale, every
        if draft is not None and draft >= site.n_blocks:
            raise FieldError("draft", f"must be below the {site.n_blocks} blocks of the stack")
        exits = range(site.n_blocks - every, 1, -every)  # the blocks before each
        deep = [blocks for blocks in exits if 2 * blocks >= site.n_blocks]
        usual = min(deep or exits, default=0)
        self.draft_depth = 0 if site.n_steps else usual if draft is None else draft

    def forward(self, batch: Batch) -> Learned:
        """The weighted loss; that of the exit after block N is logged as `loss_block_N`."""
        states = batch.states(blocks=batch.training)
        last = batch.cross_entropy(states.hidden)
        if not batch.training:
            return Learned(last.total, last.cross_entropy)
        depth = len(states.blocks)
        weights = exit_weights(depth, self.scale, self.every)
        total, parts = weights.pop(depth - 1) * last.total, dict[str, Tensor]()
        for index, weight in weights.items():
            loss = batch.cross_entropy(batch.normalised(states.blocks[index]))
            total = total + weight * loss.total
            parts[f"loss_block_{index + 1}"] = loss.cross_entropy
        return Learned(total, last.cross_entropy, parts)


def exit_weights(depth: int, scale: float, every: int) -> dict[int, float]:
    """The weight of each exit by its block, from 0; they sum to 1."""
    last = depth - 1
    exits = range(last - every, 0, -every)  # block 0 has weight 0
    weights = {index: scale * index * (index + 1) / 2 for index in reversed(exits)}
    weights[last] = last + scale * (last - 1) * last / 2
    if not any(weights.values()):
        return {last: 1.0}  # a curriculum runs this block alone
    whole = sum(weights.values())
    return {index: weight / whole for index, weight in weights.items() if weight}
