"""Contracts of training and its observers: optimizers, schedules, trackers."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from strawberry.contracts.parametrization import Parametrization, StepScale, UpdateSize, Weight
from strawberry.contracts.parts import MatrixLayout, Unit


@dataclass(frozen=True, slots=True)
class Matrix:
    """A logical matrix of a parameter, such as q of a fused qkv.

    Attributes:
        name: the name that its projection declares; the parameter's if it is one matrix.
        count: number of stacked matrices, one for each expert.
        fan_out: rows of one matrix.
        fan_in: columns.
        heads: number of heads among its rows.
    """

    name: str
    count: int
    fan_out: int
    fan_in: int
    heads: int


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter with its description.

    Attributes:
        name: its path in the model.
        parameter: the tensor; under `fsdp` a DTensor.
        kind: `embedding` (token and position tables, an untied head), `matrix` (2-D hidden), `bank`
            (3-D stacks of matrices), `vector` (gains, biases, scalars), or the kind that its module
            declares in a class attribute `parameter_kinds = {"attribute": "kind"}`, such as
            `router`.
        parts: the matrices among its rows, declared by its module in `parameter_parts =
            {"attribute": parts}`; None if it is one matrix, or a stack of them.
        weight: what its parametrization is told of it; of a part of a parameter, the parameter's.
        parametrization: the model's; None outside of one.
    """

    name: str
    parameter: nn.Parameter
    kind: str
    parts: MatrixLayout | None = None
    weight: Weight | None = None
    parametrization: Parametrization | None = None

    def step(self, update: UpdateSize) -> StepScale:
        """Factors on the settings of an optimizer whose updates are of that size."""
        if self.weight is None or self.parametrization is None:
            return StepScale()
        return self.parametrization.step(self.weight, update)

    @property
    def layout(self) -> MatrixLayout:
        """Its parts, also for a single matrix; for a parameter of at least one dimension."""
        if self.parts is not None:
            return self.parts
        rows = self.parameter.shape[0 if self.parameter.ndim == 1 else -2]
        return MatrixLayout.single(self.name.rpartition(".")[2], rows)

    @property
    def fan_in(self) -> int:
        """Columns of its matrices, the terms of each output; 1 for a vector."""
        return self.parameter.shape[-1] if self.parameter.ndim > 1 else 1

    @property
    def fan_out(self) -> int:
        """Rows of its matrices together; the length of a vector."""
        return self.layout.rows if self.parameter.ndim else 1

    @property
    def heads(self) -> int:
        """Number of heads among its rows, over all of its matrices; 1 without a declaration."""
        return max(part.heads for part in self.layout.parts) if self.parameter.ndim else 1

    def matrices(self) -> list[Matrix]:
        """Its logical matrices; none unless it is a matrix or a stack of them."""
        if self.kind not in ("matrix", "bank"):
            return []
        layout, columns = self.layout, self.parameter.shape[-1]
        count = self.parameter.numel() // (layout.rows * columns)
        return [Matrix(p.name, count, p.rows, columns, p.heads) for p in layout.parts]


@dataclass(frozen=True, slots=True)
class OptimizerSite:
    """The site of an optimizer.

    Attributes:
        learning_rate: the recipe's peak learning rate.
        max_iters: optimizer steps of the run.
        warmup_iters: steps of the linear warm-up.
        n_embd: model width C.
        depth: unrolled depth of the model, in blocks.
    """

    learning_rate: float = 3e-3
    max_iters: int = 1000
    warmup_iters: int = 100
    n_embd: int = 1
    depth: int = 1


class OptimizerSource(abc.ABC):
    """Creates a torch optimizer for some of the parameters.

    Constructed with `(site, *, fields)`, an `OptimizerSite`.

    `lr` is its peak learning rate (None: the recipe's `train.learning_rate`); the schedule scales
    all optimizers together. `rest`, if not None, is the optimizer (a spec, as in the recipe) for
    the parameters that this one does not claim. Gradient descent:

        class Descent(OptimizerSource):
            update = "gradient"

            def make(self, infos, *, lr, device):
                return torch.optim.SGD([info.parameter for info in infos], lr=lr)

    Attributes:
        shards: whether it steps sharded parameters (DTensors) to the same values as unsharded ones.
            Declare it if each number's step depends on that number alone, or if the optimizer
            gathers what it needs (see `whole`); without it, `train.parallel: fsdp` is refused.
        needs_whole: whether it gathers matrices at each step, for the traffic in the cost report.
        unit: the unit that it steps. With `matrix` or `head`, `make` receives every logical matrix,
            or every head's rows of it, as a separate parameter: q, k and v one by one, although
            they are one tensor in the model, and the experts of a stack. Only an optimizer that
            also `shards` receives the parameters themselves, and splits them by `info.layout`,
            because no matrix is whole in shards.
        update: the size of its updates at a learning rate of 1, by which the parametrization scales
            the rates.
        passes: how many gradients of its batch a step takes. `after_pass` is called with each.
            Sharpness-aware minimisation takes two: of the weights, and of weights moved along the
            first gradient. Of several optimizers, all take as many as the one that takes most.
    """

    lr: float | None = None
    rest: Any = None
    shards: bool = False
    needs_whole: bool = False
    unit: Unit = "parameter"
    update: UpdateSize = "elementwise"
    passes: int = 1

    def __init__(self, site: OptimizerSite) -> None:
        self.site = site

    @classmethod
    def asked(cls) -> Iterator[tuple[str, str]]:
        """The methods that what it declares asks for, each with the reason."""
        if isinstance(cls.passes, int) and cls.passes > 1:
            yield "after_pass", f"it takes {cls.passes} passes, and only that uses the first"

    def claims(self, info: ParameterInfo) -> bool:
        """Return whether it can optimise that parameter."""
        return True

    @abc.abstractmethod
    def make(
        self, infos: Sequence[ParameterInfo], *, lr: float, device: torch.device
    ) -> torch.optim.Optimizer:
        """The torch optimizer over `infos`, with peak learning rate `lr`."""

    def before_step(self, optimizer: torch.optim.Optimizer, step: int) -> None:  # noqa: B027
        """Set values that depend only on the step (from 0), such as a momentum warm-up."""

    def after_pass(self, optimizer: torch.optim.Optimizer, number: int) -> None:  # noqa: B027
        """Called with the gradient of each pass of a step, numbered from 0, if there are several.

        It may change the weights for the next pass, or step the optimizer, at this step's learning
        rates. The gradient of the last pass is the step's: `optimizer.step` applies it after this
        call, or never, if it isn't finite. So undo what must be undone here, in the last pass.
        """

    def rate(self, optimizer: torch.optim.Optimizer) -> float:
        """The learning rate of the last step, for the log.

        Override it if the optimizer uses another learning rate than the given one.
        """
        return float(optimizer.param_groups[0]["lr"])

    def evaluating(self, optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
        """In this context, parameters have the values for evaluation and saving (an average).

        Afterwards they have the training values again, bit for bit. A checkpoint is written inside
        it, so the optimizer's state must then contain what `loaded` needs.
        """
        return contextlib.nullcontext()

    def loaded(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027
        """Restore the training values, after parameters and state were loaded from a checkpoint."""


@dataclass(frozen=True, slots=True)
class ScheduleSite:
    """The site of a schedule; the fields are those of the recipe's `train` section."""

    learning_rate: float
    min_lr: float
    warmup_iters: int
    lr_decay_iters: int
    cooldown_frac: float
    max_iters: int


class Schedule(abc.ABC):
    """A learning rate as a pure function of the step. Constructed with `(site, *, fields)`.

    The site is a `ScheduleSite`. A rate that falls with the root of the step:

        class Root(Schedule):
            def __init__(self, site):
                self.peak = site.learning_rate

            def __call__(self, step):
                return self.peak / (step + 1) ** 0.5
    """

    @abc.abstractmethod
    def __call__(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""


@dataclass(frozen=True, slots=True)
class TrackerSite:
    """The site of a tracker.

    Attributes:
        recipe: the recipe's name.
        max_iters: optimizer steps of the run.
    """

    recipe: str = ""
    max_iters: int = 0


class Tracker:
    """An observer of one run, named in the recipe's `trackers`.

    Constructed with `(site, *, fields)`, a `TrackerSite`; a tracker passed to a run by a program
    needs none. Every method does nothing unless overridden. One that ends its run:

        class Enough(Tracker):
            def evaluated(self, run, step, metrics):
                if metrics["val_loss"] < 2:
                    raise StopRun("the loss is below 2")
    """

    def __init__(self, site: TrackerSite | None = None) -> None:
        self.site = site or TrackerSite()

    def model_built(self, model: nn.Module, recipe: Any) -> None:
        """Before the first step."""

    def step_done(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """After a logged step."""

    def evaluated(self, run: Path, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation."""

    def checkpoint_saved(self, run: Path, step: int, path: Path) -> None:
        """After a checkpoint is complete on disk."""

    def run_finished(self, run: Path, status: str) -> None:
        """At the end; `status` is `finished`, `interrupted` or `failed`."""
