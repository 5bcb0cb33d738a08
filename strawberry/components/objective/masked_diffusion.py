"""Masked diffusion (Nie et al. 2025, LLaDA, arXiv 2502.09992, equations 3 and 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite, Prediction, hashed
from strawberry.errors import FieldError

LEAST = 1e-3
"""The smallest probability with which training masks a token."""


class MaskedDiffusion(Objective):
    """Masked tokens are predicted from those that are left, of both sides.

    The targets are learned, as a separate sequence. In training each is masked with a probability
    t, drawn for each sequence; its cross-entropy has weight 1 / t. Evaluation masks a given number
    of tokens l of each sequence's L, with weight L / l: `val_loss` is an upper bound on the nats of
    a token.

    Args:
        mask_id: the id of the mask, which no text has; null takes the last of the vocabulary.
        draws: masks that an evaluation draws for each row. They depend on its number alone.
    """

    left_to_right: ClassVar[bool] = False
    checked_with: ClassVar[Mapping[str, Any]] = {
        path: {"use": "mha", "causal": False}
        for path in ("model.stack[0].attention", "model.stack[1].stack[0].attention")
    }

    def __init__(
        self,
        site: ObjectiveSite,
        *,
        mask_id: Annotated[int, Ge(0)] | None = None,
        draws: Annotated[int, Ge(1)] = 8,
    ) -> None:
        super().__init__()
        if not site.both_ways:
            message = "its mixers must see both ways, such as `mha` with `causal: false`"
            raise FieldError("", message)
        if mask_id is not None and mask_id >= site.vocab_size:
            raise FieldError("mask_id", f"{mask_id} is outside of {site.vocab_size} ids")
        self.mask_id = site.vocab_size - 1 if mask_id is None else mask_id
        self.draws = draws

    def forward(self, batch: Batch) -> Learned:
        """The bound of equation 3, with drawn masks; in evaluation that of `predictions`."""
        if not batch.training:
            return self._bound(batch)
        rows, length = batch.ids.shape
        t = LEAST + (1 - LEAST) * torch.rand(rows, 1, device=batch.ids.device)
        masked = (torch.rand(rows, length, device=t.device) < t) & (batch.targets >= 0)
        hidden = batch.states(self._noised(batch, masked)).hidden
        targets = batch.targets.where(masked, -1)
        loss = batch.cross_entropy(hidden, targets, weights=(1 / t).expand(rows, length))
        return Learned(loss.total, loss.cross_entropy)

    def predictions(self, batch: Batch) -> Iterator[Prediction]:
        """The bound of equation 6, with numbers of masked tokens spread evenly from 1 to L."""
        asked = batch.targets >= 0
        whole = asked.sum(1, keepdim=True)
        assert batch.rows is not None
        columns = torch.arange(asked.shape[1] + 1, device=asked.device)
        for draw in range(self.draws):
            noise = hashed(batch.rows[:, None], columns, draw)
            place = (draw + noise[:, -1:]) / self.draws
            count = (whole * place).floor().long() + 1  # 1 ... L
            order = noise[:, :-1].masked_fill(~asked, torch.inf).argsort(1).argsort(1)
            masked = asked & (order < count)
            weights = (whole / count / self.draws).expand_as(noise[:, :-1])
            hidden = batch.states(self._noised(batch, masked)).hidden
            yield Prediction(hidden, batch.targets.where(masked, -1), weights)

    def _bound(self, batch: Batch) -> Learned:
        every = [batch.cross_entropy(p.hidden, p.targets, weights=p.weights)
                 for p in self.predictions(batch)]  # fmt: skip
        return Learned(
            torch.stack([one.total for one in every]).sum(),
            torch.stack([one.cross_entropy for one in every]).sum(),
        )

    def _noised(self, batch: Batch, masked: Tensor) -> Tensor:
        """The targets, masked; where there is none the token that stands there."""
        here = F.pad(batch.ids[:, 1:], (0, 1), value=self.mask_id)
        clean = torch.where(batch.targets >= 0, batch.targets, here)
        return clean.masked_fill(masked, self.mask_id)
