"""Prediction of several tokens ahead.

Parallel heads: Gloeckle et al. 2024, arXiv 2404.19737, section 2. Chained modules: DeepSeek-AI 2024
(DeepSeek-V3), arXiv 2412.19437, section 2.2.
"""

from __future__ import annotations

from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import Aux, Batch, Learned, Objective, ObjectiveSite, OwnBlock, Seen
from strawberry.errors import FieldError, StrawberryError


class MultiToken(Objective):
    """The next token by the model itself, later ones by blocks of the objective's own.

    `L = L_1 + weight * mean_k L_k`, where L_k is the cross-entropy of the k-th token after each
    position, k = 2 ... `tokens`. All have the model's last norm and head.

    Args:
        tokens: how many tokens ahead are predicted, the next one among them.
        form: `parallel` gives each later token a block that reads what the model's last block
            reads; `chained` gives each a block that reads what the block for the token before it
            returned, and the embedding of that token.
        weight: of the mean loss of the later tokens; null takes that of the paper: `tokens - 1`
            for `parallel`, which is the sum of all losses, and 0.3 for `chained`.
    """

    def __init__(
        self,
        site: ObjectiveSite,
        *,
        tokens: Annotated[int, Ge(2)] = 2,
        form: Literal["parallel", "chained"] = "parallel",
        weight: Annotated[float, Ge(0)] | None = None,
    ) -> None:
        super().__init__()
        if tokens >= site.block_size:
            message = f"a sequence of {site.block_size} has no {tokens} tokens ahead"
            raise FieldError("tokens", message)
        if form == "parallel" and site.n_blocks < 2:
            raise FieldError(
                "form", "a stack of one block has no other block to run with; use `chained`"
            )
        later, C = range(2, tokens + 1), site.n_embd
        self.blocks = nn.ModuleList(site.own_block() for _ in later)
        self.drafts = 1 if form == "chained" else tokens - 1
        self.merges: nn.ModuleList | None = None
        if form == "chained":
            self.merges = nn.ModuleList(site.projection(f"merge_{k}", C, 2 * C) for k in later)
            self.state_norms = nn.ModuleList(site.norm(C) for _ in later)
            self.token_norms = nn.ModuleList(site.norm(C) for _ in later)
            self.weight = 0.3 if weight is None else weight
        else:
            self.weight = tokens - 1.0 if weight is None else weight

    def forward(self, batch: Batch) -> Learned:
        """The losses of all tokens; each is logged as `loss_ahead_K`."""
        states = batch.states(blocks=batch.training)
        first = batch.cross_entropy(states.hidden)
        total, parts, terms = first.total, dict[str, Tensor](), Aux()
        if not batch.training:
            return Learned(total, first.cross_entropy)
        if self.merges is None and len(states.blocks) < 2:
            raise StrawberryError(
                "objective multi_token: a curriculum runs one block alone, and `form: parallel` "
                "needs another one before it; let two run, or use `form: chained`"
            )
        x = states.blocks[-2 if self.merges is None else -1]
        for index, block in enumerate(self.blocks):
            y, more = block(self._merged(x, index, batch), batch.use())
            loss = batch.cross_entropy(batch.normalised(y), ahead(batch, index + 1))
            total = total + self.weight / len(self.blocks) * loss.total
            parts[f"loss_ahead_{index + 2}"] = loss.cross_entropy
            terms += more
            x = x if self.merges is None else y
        return Learned(total, first.cross_entropy, parts, terms)

    def draft(self, seen: Seen) -> Tensor:
        """The later tokens by their blocks; of chained ones the first, which reads sure tokens."""
        if self.merges is None:
            x = seen.states.blocks[-2]
            blocks = (cast("OwnBlock", block) for block in self.blocks)
            guesses = [seen.likely(seen.run(block, x)) for block in blocks]
            return torch.stack(guesses, dim=-1)
        both = (
            self.state_norms[0](seen.states.blocks[-1]),
            self.token_norms[0](seen.embed(seen.following)),
        )
        x = self.merges[0](torch.cat(both, dim=-1), seen.use())
        return seen.likely(seen.run(cast("OwnBlock", self.blocks[0]), x))[None]

    def _merged(self, x: Tensor, index: int, batch: Batch) -> Tensor:
        """Input of a later token's block: (B, T, C)."""
        if self.merges is None:
            return x
        token = batch.embed(shifted(batch.ids, index + 1, 0))
        both = self.state_norms[index](x), self.token_norms[index](token)
        return self.merges[index](torch.cat(both, dim=-1), batch.use())


def ahead(batch: Batch, steps: int) -> Tensor:
    """The targets so many tokens later, (B, T): none past the end, and none of another document."""
    targets = shifted(batch.targets, steps, -1)
    documents = batch.use().documents
    if documents is None:
        return targets
    return targets.masked_fill(shifted(documents, steps, -1) != documents, -1)


def shifted(ids: Tensor, steps: int, fill: int) -> Tensor:
    """(B, T), each from so many places later."""
    return F.pad(ids[:, steps:], (0, steps), value=fill)
