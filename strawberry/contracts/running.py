"""The contract of components that follow a run's steps: averages of weights."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from torch import Tensor

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
