"""Contracts of objectives: the loss of a batch, and its inputs.

B sequences of T tokens, C model width, V vocabulary.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from strawberry.contracts.component import Component
from strawberry.contracts.sites import Site
from strawberry.contracts.terms import Aux
from strawberry.contracts.use import Use


class HeadLoss(NamedTuple):
    """Float32 scalars: sums over the targets that are not ignored, divided by a count of them.

    Attributes:
        total: the training loss; the only one with a gradient.
        cross_entropy: the plain cross-entropy in nats.
        z: the squared logsumexp of the logits.
    """

    total: Tensor
    cross_entropy: Tensor
    z: Tensor


class States(NamedTuple):
    """The results of one pass through the model.

    Attributes:
        hidden: (B, T, C), normalised: the head makes logits of it.
        blocks: the residual stream (B, T, C) after each block use, in order, if asked for. A
            recursion with a router counts as one: within it not all tokens are there.
        steps: the residual stream after each step of each outermost recursion, if asked for.
    """

    hidden: Tensor
    blocks: tuple[Tensor, ...] = ()
    steps: tuple[Tensor, ...] = ()


class Learned(NamedTuple):
    """The result of an objective for a batch.

    Attributes:
        total: a scalar, what is minimised. Sums over targets are divided by `batch.count`;
            whatever else is in it is a mean over the batch's tokens, multiplied by `batch.share`.
        loss: what is logged as `loss`, a sum over targets divided by `batch.count`; for a causal
            model the cross-entropy of the next token, so that runs can be compared.
        parts: what is logged beside it by name, also divided by `batch.count`.
        terms: losses and metrics of the objective's own blocks. Those of the model's are known.
    """

    total: Tensor
    loss: Tensor
    parts: Mapping[str, Tensor] = MappingProxyType({})
    terms: Aux = ()


class Prediction(NamedTuple):
    """The scores of an evaluation: the cross-entropy of targets under the head's distribution.

    Attributes:
        hidden: (B, T, C), normalised. It must not depend on the targets with a weight.
        targets: (B, T) ids; negative ones are ignored.
        weights: (B, T), what each target's cross-entropy is multiplied by; None for 1.
    """

    hidden: Tensor
    targets: Tensor
    weights: Tensor | None = None


class Batch(abc.ABC):
    """A batch, and the model that learns from it: what an objective works with.

    Attributes:
        ids: (B, T) int64, what the model reads.
        targets: (B, T) int64, the ids that follow; negative ones are not predicted.
        count: what sums over targets are divided by. Of a step in several parts, or on several
            ranks, it counts the targets of all, so that parts add up to the step's loss.
        share: this part's share of the step's tokens.
        training: whether this is a training step.
        carried: tensors that the objective keeps from one pass over this batch to the next, where
            an optimizer takes several; empty in the first one. Detach what is put there.
        rows: (B,) int64, the number of each row in its split, for noise that is the same in every
            evaluation; None in training.
    """

    ids: Tensor
    targets: Tensor
    count: Tensor
    share: float
    training: bool
    rows: Tensor | None
    carried: dict[str, Tensor]

    @abc.abstractmethod
    def states(
        self,
        ids: Tensor | None = None,
        *,
        blocks: bool = False,
        steps: bool = False,
        cut: int = 0,
        embedded: Tensor | None = None,
    ) -> States:
        """Run the model: on `ids`, or on other ids (B, T).

        Args:
            ids: in place of the batch's.
            embedded: (B, T, C), in place of the embeddings of the ids: `batch.embed(ids)`, changed.
            blocks: keep the state after each block.
            steps: keep the state after each step of a recursion.
            cut: after each so many steps of an outermost recursion, let no gradient flow back; 0
                for never.
        """

    @abc.abstractmethod
    def use(self, ids: Tensor | None = None) -> Use:
        """The use of a pass over the ids, for projections and blocks of an objective's own."""

    @abc.abstractmethod
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
        """Cross-entropy of hidden states (B, T, C), computed a chunk of tokens at a time.

        Args:
            hidden: normalised states.
            targets: (B, T), in place of the batch's; negative ones are ignored.
            weights: (B, T), what each target counts; without gradient. None for 1.
            head: (V, C) in place of the model's head.
            z_loss: weight of the squared logsumexp of the logits.
            label_smoothing: share of a target's probability that is spread over the vocabulary.
        """

    @abc.abstractmethod
    def over_logits(
        self,
        hidden: Tensor,
        each: Callable[..., Tensor],
        *others: Tensor,
        head: Tensor | None = None,
    ) -> Tensor:
        """Any loss of logits, computed a chunk of tokens at a time.

        Args:
            hidden: normalised states (B, T, C).
            each: called with the logits (N, V) of some tokens, at least float32, and with the rows
                of `others` that belong to them; returns the loss of each, (N,).
            others: (B, T, ...), such as `batch.targets`; without gradient.
            head: (V, C) in place of the model's head.

        Returns:
            The sum over the tokens that have a target, divided by `count`.
        """

    @abc.abstractmethod
    def normalised(self, stream: Tensor) -> Tensor:
        """The residual stream (..., C) through the model's last norm: what the head reads."""

    @abc.abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings (..., C) of ids."""


class Teacher(Protocol):
    """A trained model, from a run: it is no part of the one that learns, nor saved with it."""

    def hidden(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> its normalised states (B, T, its width), without gradient."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Normalised states (N, its width) -> logits (N, V)."""


class OwnBlock(nn.Module, abc.ABC):
    """A block of an objective's own, built as the last block of the model's stack is."""

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> tuple[Tensor, Aux]:
        """(B, T, C) -> (B, T, C), and its terms."""


class Seen(abc.ABC):
    """Tokens of one text that are sure, in generation: what an objective's heads draft from.

    Attributes:
        states: of the last T of them, (1, T, C), with `blocks`; none was seen before.
        following: the token after each, (1, T). The last one is new, and not read yet.
    """

    states: States
    following: Tensor

    @abc.abstractmethod
    def run(self, block: OwnBlock, x: Tensor) -> Tensor:
        """A block over inputs (1, T, C) of these tokens, after those of earlier calls."""

    @abc.abstractmethod
    def use(self) -> Use:
        """The use of these tokens, for projections."""

    @abc.abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings (..., C) of ids."""

    @abc.abstractmethod
    def likely(self, x: Tensor) -> Tensor:
        """The likeliest id (1,) after the last token of a stream (1, T, C), by norm and head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSite(Site):
    """The model that an objective is built for: a `Site` outside of all blocks.

    Attributes:
        n_blocks: how many states `states(blocks=True)` has.
        n_steps: how many states `states(steps=True)` has; 0 if nothing recurs.
        both_ways: whether every mixer declares that it sees later tokens too.
        own_block: builds a block as the last one of the stack, with weights of its own.
        teacher: `teacher(run)` gives the model of a run folder; it is read when training begins.
    """

    n_blocks: int
    n_steps: int
    both_ways: bool
    own_block: Callable[[], OwnBlock]
    teacher: Callable[[str], Teacher]


class Objective(Component, abc.ABC):
    """The loss that a model learns from a batch, and its heads.

    It decides what goes into the model, which states are read, and what the loss is:

        class Focal(Objective):
            def __init__(self, site: ObjectiveSite, *, gamma: float = 2.0) -> None:
                super().__init__()
                self.gamma = gamma

            def forward(self, batch: Batch) -> Learned:
                hidden = batch.states().hidden
                total = batch.over_logits(hidden, self.each, batch.targets)
                return Learned(total, batch.cross_entropy(hidden.detach()).cross_entropy)

            def each(self, logits: Tensor, targets: Tensor) -> Tensor:
                nats = F.cross_entropy(logits, targets.clamp(min=0), reduction="none")
                return (1 - torch.exp(-nats)) ** self.gamma * nats

    Its parameters are trained and saved with the model's, under `objective.`. They are drawn after
    all others: a model begins with the same weights whatever its objective is.

    Attributes:
        left_to_right: whether the model predicts each token from those before it. If not, it can't
            be generated from token by token, and `predictions` says what evaluation scores.
        drafts: how many tokens `draft` guesses; 0 if it guesses none.
        draft_depth: how many nodes of the stack draft by themselves, where the state after them
            predicts the next token (early exits); 0 for none. Only if it has no `drafts`.
        checked_with: what the recipe in which it is checked says beside it, by paths.
    """

    left_to_right: ClassVar[bool] = True
    drafts: int = 0
    draft_depth: int = 0
    checked_with: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @classmethod
    def asked(cls) -> Iterator[tuple[str, str]]:
        """The methods that what it declares asks for, each with the reason."""
        if not cls.left_to_right:
            yield "predictions", "it is not `left_to_right`"
        if isinstance(cls.drafts, int) and cls.drafts:
            yield "draft", f"it drafts {cls.drafts}"

    @abc.abstractmethod
    def forward(self, batch: Batch) -> Learned:
        """The loss of a batch, in training; in evaluation, without what is for training alone."""

    def predictions(self, batch: Batch) -> Iterator[Prediction]:
        """The scores of an evaluation; their sum, divided by the targets, is `val_loss`.

        The default is the next token: override it where a model predicts otherwise, and say
        `left_to_right = False`. Noise is drawn from `batch.rows`, so that it is the same for every
        model. `val_loss` must be a bound on the nats of the targets, and the weights of a row come
        to the number of its targets.
        """
        yield Prediction(batch.states().hidden, batch.targets)

    def draft(self, seen: Seen) -> Tensor:
        """The ids (1, drafts) that it expects after `seen.following`, for speculative decoding.

        The model verifies them, so the text is that of greedy decoding. It is called once for each
        token of a text, several tokens at a time.
        """
        raise NotImplementedError
