"""Parametrizations: how each tensor is initialised, multiplied and stepped, from its shape.

A parametrization never sees a component, only what one declares: the shape of a matrix, whether it
writes to the residual stream, and the kind of a parameter. So it also holds for a component that
does not know of it.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Literal, TypeAlias

UpdateSize: TypeAlias = Literal[
    "elementwise", "relative", "orthogonal", "orthogonal_rms", "gradient"
]
"""The size of an optimizer's update at a learning rate of 1. `elementwise`: each number moves by
about 1 (Adam, Lion). `relative`: by about the tensor's root mean square (Adafactor). `orthogonal`:
singular values of sqrt(max(1, rows / columns)) (Muon). `orthogonal_rms`: of sqrt(max(rows,
columns)), up to a constant. `gradient`: the gradient itself (SGD)."""

Role: TypeAlias = Literal["input", "hidden", "output", "fixed"]
"""Which sides of a tensor grow with the model's width: its output, both, its input, neither."""


@dataclass(frozen=True, slots=True)
class ParametrizationSite:
    """The site of a parametrization.

    Attributes:
        n_embd: model width C.
        depth: unrolled depth of the model, in blocks: a recurring block counts at every step.
    """

    n_embd: int
    depth: int


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor as a parametrization sees it.

    Attributes:
        name: of a matrix that a component requests, its role and name, such as `attention.qkv`;
            of a parameter, its path in the model.
        kind: as in `ParameterInfo.kind`; `head` for the output head.
        fan_in: the terms of each output: columns of a matrix; 1 for a table or a vector.
        fan_out: its outputs: rows of a matrix; the width of a table or of a vector.
        grows: whether its fan-in and its fan-out grow with the model's width.
        output: whether it is a matrix that writes to the residual stream.
        in_block: whether it is a part of a block, rather than of the model's ends.
    """

    name: str
    kind: str
    fan_in: int
    fan_out: int
    grows: tuple[bool, bool] = (True, True)
    output: bool = False
    in_block: bool = True

    @property
    def role(self) -> Role:
        """Which of its sides grow."""
        names: dict[tuple[bool, bool], Role] = {
            (False, True): "input",
            (True, True): "hidden",
            (True, False): "output",
            (False, False): "fixed",
        }
        return names[self.grows]


@dataclass(frozen=True, slots=True)
class Initial:
    """The start of a matrix or a table.

    Attributes:
        std: standard deviation; 0 for zeros.
        uniform: uniform rather than normal.
        multiplier: factor on its output in every pass.
    """

    std: float
    uniform: bool = False
    multiplier: float = 1.0


@dataclass(frozen=True, slots=True)
class StepScale:
    """Factors on a parameter's settings of its optimizer.

    Attributes:
        rate: on the learning rate.
        decay: on the weight decay, which a step multiplies by the learning rate.
        epsilon: on the number that an adaptive optimizer adds to a denominator.
    """

    rate: float = 1.0
    decay: float = 1.0
    epsilon: float = 1.0


class Parametrization(abc.ABC):
    """How tensors start and are stepped. Constructed with `(site, *, fields)`.

    The site is a `ParametrizationSite`. One with smaller outputs in wider models:

        class Small(Parametrization):
            def initial(self, weight):
                return Initial(0.5 * weight.fan_in**-0.5 if weight.output else 0.02)

    Attributes:
        sees_growth: whether it reads `Weight.grows`. The recipe is then also built at twice its
            width, without values, for the sides that grow; otherwise both are said to.
    """

    sees_growth: bool = False

    def __init__(self, site: ParametrizationSite) -> None:
        self.site = site

    @abc.abstractmethod
    def initial(self, weight: Weight) -> Initial:
        """The start of a matrix, of the table of embeddings, or of the head.

        A head that is the table of embeddings has the table's start, and its own multiplier.
        """

    def step(self, weight: Weight, update: UpdateSize) -> StepScale:
        """Factors on the settings of the optimizer of any parameter, also of gains and biases."""
        return StepScale()

    def branch(self) -> float:
        """Factor on what a part of a block adds to the residual stream."""
        return 1.0

    def score_scale(self, head_width: int) -> float | None:
        """Factor on the scores of an attention; None for head_width^-0.5."""
        return None
