"""A batch as an objective sees it, and the losses that come of it.

B sequences of T tokens, C model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from strawberry.contracts import Aux, Batch, HeadLoss, Metric, Prediction, States, Use, mean_terms
from strawberry.model.loss import LossTerms, head_loss, loss_over_logits

if TYPE_CHECKING:
    from strawberry.model.language_model import LanguageModel

_ROWS = 4096
"""Tokens whose logits are held at once where answers are counted."""


class Loss(NamedTuple):
    """The loss of a batch, or a micro-batch's part of the loss of a step.

    Attributes:
        total: what to call `backward` on: the objective's loss, and weighted auxiliary losses.
        cross_entropy: what is logged as the loss: the mean over targets, in nats.
        terms: what components returned, by name, unweighted.
        parts: what the objective tells beside, divided as `cross_entropy` is.
    """

    total: Tensor
    cross_entropy: Tensor
    terms: Mapping[str, Metric] = MappingProxyType({})
    parts: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Its logged values by name, besides the loss."""
        return {**self.parts, **{name: term.number() for name, term in self.terms.items()}}


class RowNats(NamedTuple):
    """The measurements of an evaluation batch.

    Attributes:
        rows: (B,) the nats of each sequence's targets, summed.
        terms: what components returned, by name.
        answers: (4,) int64: targets that are told right, targets, sequences told right whole,
            sequences with any target. None where they weren't asked for.
    """

    rows: Tensor
    terms: Mapping[str, Metric] = MappingProxyType({})
    answers: Tensor | None = None


class ModelBatch(Batch):
    """A batch, and a model that runs it."""

    def __init__(
        self,
        model: LanguageModel,
        ids: Tensor,
        targets: Tensor,
        count: Tensor | None = None,
        share: float = 1.0,
        rows: Tensor | None = None,
    ) -> None:
        self.model, self.ids, self.targets = model, ids, targets
        self.count = (targets >= 0).sum().clamp(min=1) if count is None else count
        self.share, self.training = share, model.training
        if rows is None and not self.training:
            rows = torch.arange(len(ids), device=ids.device)
        self.rows = rows
        self.carried = model.carried
        self.aux: Aux = ()

    def states(
        self,
        ids: Tensor | None = None,
        *,
        blocks: bool = False,
        steps: bool = False,
        cut: int = 0,
        embedded: Tensor | None = None,
    ) -> States:
        """Run the model; the terms of its components are kept."""
        ids = self.ids if ids is None else ids
        passed = self.model.run(ids, None, (blocks, steps, cut), embedded)
        self.aux += passed.aux
        return States(passed.hidden, passed.blocks, passed.steps)

    def use(self, ids: Tensor | None = None) -> Use:
        """The use of a pass over the ids."""
        return self.model.use_of_blocks(self.ids if ids is None else ids)

    def cross_entropy(
        self,
        hidden: Tensor,
        targets: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        head: Tensor | None = None,
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> HeadLoss:
        """Cross-entropy of hidden states (B, T, C)."""
        return head_loss(
            self._read(hidden, head),
            self.model.head_weight if head is None else head,
            (self.targets if targets is None else targets).flatten(),
            self.model.logit_softcap,
            LossTerms(z_loss, label_smoothing),
            self.count,
            None if weights is None else weights.flatten(),
        )

    def over_logits(
        self,
        hidden: Tensor,
        each: Callable[..., Tensor],
        *others: Tensor,
        head: Tensor | None = None,
    ) -> Tensor:
        """Any loss of logits."""
        total = loss_over_logits(
            self._read(hidden, head),
            self.model.head_weight if head is None else head,
            each,
            [self.targets.flatten() >= 0, *(other.flatten(0, 1) for other in others)],
            self.model.logit_softcap,
        )
        return total / self.count

    def _read(self, hidden: Tensor, head: Tensor | None) -> Tensor:
        """Hidden states (B, T, C) as the model's head, or another, reads them: (B * T, C)."""
        flat = hidden.flatten(0, -2)
        return self.model.before_head(flat) if head is None else flat

    def normalised(self, stream: Tensor) -> Tensor:
        """Through the model's last norm."""
        return self.model.norm(stream)

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of ids."""
        return self.model.embed(ids, self.model.use(ids))


def loss_of(batch: ModelBatch) -> Loss:
    """The loss of the model's objective for a batch, with the weighted terms of components."""
    learned = batch.model.objective(batch)
    total, terms = learned.total, {}
    for name, (metric, weighted) in mean_terms((*batch.aux, *learned.terms)).items():
        terms[name] = metric
        if weighted is not None:
            total = total + batch.share * weighted
    parts = {name: part.detach() for name, part in learned.parts.items()}
    return Loss(total, learned.loss.detach(), terms, parts)


def measured(batch: ModelBatch, *, answers: bool = False) -> RowNats:
    """The evaluation's cross-entropy of the objective's predictions.

    It is computed here and not by the objective, of a softmax over the model's head.
    """
    rows, told = None, None
    for prediction in batch.model.objective.predictions(batch):
        own = _nats(batch, prediction)
        rows = own if rows is None else rows + own
        if answers and told is None and batch.model.objective.left_to_right:
            told = _answers(batch.model, prediction.hidden, prediction.targets)
    assert rows is not None, "an objective predicts something"
    terms = {name: metric for name, (metric, _) in mean_terms(batch.aux).items()}
    return RowNats(rows, terms, told)


def _nats(batch: ModelBatch, prediction: Prediction) -> Tensor:
    """The nats of each sequence's targets, (B,)."""
    model, one = batch.model, torch.ones((), device=batch.ids.device)
    every = []
    for row, (states, targets) in enumerate(
        zip(prediction.hidden, prediction.targets, strict=True)
    ):
        weights = None if prediction.weights is None else prediction.weights[row]
        head = model.head_weight, targets, model.logit_softcap, None, one, weights
        every.append(head_loss(model.before_head(states), *head).cross_entropy)
    return torch.stack(every)


def _answers(model: LanguageModel, h: Tensor, targets: Tensor) -> Tensor:
    """The counts of `RowNats.answers`, of hidden states (B, T, C)."""
    asked = targets >= 0
    likely = [model.head_logits(part).argmax(-1) for part in torch.split(h[asked], _ROWS)]
    right = torch.ones_like(asked)
    right[asked] = torch.cat(likely) == targets[asked]
    tasks = asked.any(1)
    counted = (right[asked], asked, right.all(1) & tasks, tasks)
    return torch.stack([each.sum() for each in counted])
