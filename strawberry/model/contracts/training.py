"""What trains a model and watches it: optimizers, schedules, trackers."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter and what it is.

    `kind` is `embedding` (token and position tables, an untied head), `matrix` (2-D hidden),
    `bank` (3-D stacks of matrices), `vector` (gains, biases, scalars), or what its module says in
    a class attribute `parameter_kinds = {"attribute": "kind"}`, such as `router`.
    """

    name: str
    parameter: nn.Parameter
    kind: str


class Optimizer(abc.ABC):
    """A factory of a torch optimizer over some of the parameters. Constructed with `(*, fields)`.

    `lr` is its peak learning rate (None: the recipe's `train.learning_rate`); the schedule scales
    all optimizers together. `rest`, where it is not None, is the optimizer (a spec, as in the
    recipe) that takes what this one does not claim.

    Attributes:
        shards: whether it steps parameters that are held in shards (DTensors) to the same values
            as whole ones. Say so if each number's step depends on that number alone, or if the
            optimizer gathers what it needs (see `whole`); without it, `train.parallel: fsdp` is
            refused.
        needs_whole: whether it gathers matrices at each step; for the counting of what is sent.
    """

    lr: float | None = None
    rest: Any = None
    shards: bool = False
    needs_whole: bool = False

    def claims(self, info: ParameterInfo) -> bool:
        """Whether it can optimise that parameter."""
        return True

    @abc.abstractmethod
    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The torch optimizer over `infos`, with peak learning rate `lr`."""

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:  # noqa: B027
        """Set what depends on the step (from 0) alone, such as a momentum warm-up."""

    def rate(self, optimizer: torch.optim.Optimizer) -> float:
        """The learning rate of the last step, for the log.

        Override it where the optimizer uses another one than it is given.
        """
        return float(optimizer.param_groups[0]["lr"])

    def evaluating(self, optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
        """Within it, parameters have the values to evaluate and to save, such as an average.

        At its end they have, bit for bit, those to train on. A checkpoint is written within it, so
        the optimizer's state must then hold what `loaded` needs.
        """
        return contextlib.nullcontext()

    def loaded(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027
        """Put back the values to train on, once parameters and state come from a checkpoint."""


@dataclass(frozen=True, slots=True)
class ScheduleSite:
    """What a schedule is told of the run; the fields are those of the recipe's `train` section."""

    learning_rate: float
    min_lr: float
    warmup_iters: int
    lr_decay_iters: int
    cooldown_frac: float
    max_iters: int


class Schedule(abc.ABC):
    """A learning rate as a pure function of the step. Constructed with `(site, *, fields)`."""

    @abc.abstractmethod
    def __call__(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""


class Tracker:
    """An observer of one run, named in the recipe's `trackers`. Constructed with `(*, fields)`.

    Every method does nothing unless overridden.
    """

    def model_built(self, model: nn.Module, recipe: Any) -> None:
        """Before the first step."""

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """After a logged step."""

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation."""

    def checkpoint_saved(self, run: Path, step: int, path: Path) -> None:
        """After a checkpoint is whole on disk."""

    def run_finished(self, run: Path, status: str) -> None:
        """At the end; `status` is `finished`, `interrupted` or `failed`."""
