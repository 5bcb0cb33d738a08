"""The contracts of components that follow a run's steps: averages of weights, curricula."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from strawberry.contracts.tokenizer import Tokenizer
from strawberry.contracts.use import State


@dataclass(frozen=True, slots=True)
class RunSite:
    """The run that a component is built for; the values are those of the recipe.

    Attributes:
        max_iters: optimizer steps.
        batch_size: sequences in a micro-batch, of all processes together.
        block_size: tokens of a sequence.
        depth: nodes of the model's stack, each `repeat` written out.
    """

    max_iters: int
    batch_size: int
    block_size: int
    depth: int


class Averaging(abc.ABC):
    """An average of a model's weights over the steps. Constructed with `(site, *, fields)`.

    It is asked about each parameter by itself, and keeps tensors of its shape, which are saved in
    checkpoints. What it computes is a function of each number alone, so that it is the same of
    shards. Evaluation measures it beside the raw weights, as `val_loss_NAME`; `strawberry eval` and
    `generate` take it by `--average NAME`:

        class Since(Averaging):
            def __init__(self, site: RunSite, *, step: int = 100) -> None:
                self.step = step

            def update(self, kept: State, weights: Tensor, step: int) -> None:
                if step >= self.step:
                    mean = kept.setdefault("mean", weights.clone())
                    mean.add_((weights - mean) / (step - self.step + 1))

            def value(self, kept: State, step: int) -> Tensor | None:
                return kept.get("mean")

    Attributes:
        copies: how many tensors it keeps of each parameter, at the most.
    """

    copies: int = 1

    @abc.abstractmethod
    def update(self, kept: State, weights: Tensor, step: int) -> None:
        """Take in a parameter's weights after a step.

        Args:
            kept: what is kept of this parameter, tensors of its shape by name; empty at first.
            weights: without gradient; must be copied to be kept.
            step: how many steps are done, from 1.
        """

    @abc.abstractmethod
    def value(self, kept: State, step: int) -> Tensor | None:
        """The average after so many steps; None while there is none, for the weights themselves."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for one step; None, and nothing, is what the recipe says.

    Attributes:
        batch_size: sequences in a micro-batch, at most the recipe's. Rows are taken in their order:
            a smaller step leaves none out.
        block_size: tokens of a sequence, at most the model's; each row is cut off there.
        depth: how many nodes of the model's stack run, from the first; each `repeat` is written
            out. Evaluation and generation run as many.
        frozen: parameters that this step leaves as they are: kinds, or patterns of names.
        attributes: numbers of components, by patterns of their paths:
            `{"*.attention.window": 64}`. Components list them in `adjustable`.
    """

    batch_size: int | None = None
    block_size: int | None = None
    depth: int | None = None
    frozen: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Curriculum(abc.ABC):
    """What changes over the steps of a run. Constructed with `(site, *, fields)`.

    It is a function of the step alone, so that a resumed run goes on alike, and tokens and FLOPs
    are counted beforehand. It should have few different values: each may be compiled anew:

        class Warm(Curriculum):
            def __init__(self, site: RunSite, *, steps: int = 100) -> None:
                self.steps, self.size = steps, site.batch_size

            def at(self, step: int) -> Settings:
                return Settings(batch_size=self.size // 2 if step < self.steps else None)
    """

    @abc.abstractmethod
    def at(self, step: int) -> Settings:
        """The settings of a step, from 0."""


class Measure:
    """A metric of evaluations besides the loss. Constructed with `(site, *, fields)`, a `RunSite`.

    `measure` is asked about each batch of the validation rows. Sums and counts are added over
    batches and ranks, and their ratio is logged as `val_NAME`. A name that ends with `accuracy`,
    `solved` or `score` is a score, of which more is better; of any other metric, less is better:

        class Hits(Measure):
            def __init__(self, site: RunSite) -> None:
                pass

            def measure(
                self, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor
            ) -> dict[str, tuple[Tensor, Tensor]]:
                asked = targets >= 0
                right = logits(ids).argmax(-1) == targets
                return {"hits": ((right & asked).sum(), asked.sum())}
    """

    @classmethod
    def asked(cls) -> Iterator[tuple[str, str]]:
        """The methods that what it declares asks for, each with the reason."""
        if cls.items is Measure.items:
            yield "measure", "it has no `items` either"

    def measure(
        self, logits: Callable[[Tensor], Tensor], ids: Tensor, targets: Tensor
    ) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The sum and the count of each metric by name, as scalars; none unless overridden.

        Args:
            logits: the model in evaluation: ids (B, T) -> logits (B, T, V). All ranks must call it
                equally often.
            ids: (B, T).
            targets: (B, T); negative ones are not predicted.
        """
        return {}

    def items(self, model: MeasuredModel) -> Mapping[str, ItemScores]:
        """The scores of items of its own, such as the questions of a task, by metric name.

        It is asked once in an evaluation, on every rank. The ratio of all sums and all counts is
        logged as `val_NAME`. Scores are kept by item, so an ablation with `metric: val_NAME` pairs
        them: the same items must come in the same order.
        """
        return {}


@dataclass(frozen=True, slots=True)
class ItemScores:
    """A metric by item: its sum and its count, (items,) each, such as 1 of 1 for a right answer."""

    sums: Sequence[float]
    counts: Sequence[int]

    @property
    def ratio(self) -> float:
        """The metric over all items."""
        return math.fsum(self.sums) / max(1, sum(self.counts))


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """The model that a measure is asked about, in evaluation.

    Attributes:
        model: the language model itself.
        logits: the model as the run computes it: ids (B, T) -> logits (B, T, V). All ranks must
            call it equally often.
        tokenizer: that of the run's data; None if the ids are not text.
        separator: the id that begins a document, if attention is restricted to documents.
    """

    model: nn.Module
    logits: Callable[[Tensor], Tensor]
    tokenizer: Tokenizer | None
    separator: int | None = None


class StopRun(Exception):  # noqa: N818 (not a mistake: the tracker asked for it)
    """Raised by a tracker in `step_done` or `evaluated` to end its run.

    After the next step the run is evaluated and saved, and ends as finished. A resumed run goes on.
    """
