"""Where matrices come from: projections, stacks of them, and the sources that answer for them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from strawberry.contracts.parts import MatrixLayout
from strawberry.contracts.use import State, Use


@dataclass(frozen=True, slots=True)
class ProjectionRequest:
    """What a component asks of its weight source.

    Attributes:
        block: which block asks; numbered over the model in the order in which blocks are built.
        name: the component's kind and its own name for the matrix, such as `attention.qkv`.
        out_features: rows.
        in_features: columns.
        bias: whether an additive bias comes with it.
        std: standard deviation at the start; 0 for a matrix of zeros, which a source that can't
            give one, or can't learn from it, refuses with a ValueError.
        uniform: uniform (of that deviation) rather than normal.
        parts: the matrices among the rows. A source says which of its parameters hold them, by
            an attribute `parameter_parts = {"weight": request.parts}` of the parameter's module.
    """

    block: int
    name: str
    out_features: int
    in_features: int
    bias: bool
    std: float
    uniform: bool
    parts: MatrixLayout


class Projection(nn.Module, abc.ABC):
    """A matrix (out_features, in_features) that some weight source answers for."""

    def __init__(self, request: ProjectionRequest) -> None:
        super().__init__()
        self.parts = request.parts
        self.in_features = request.in_features
        self.out_features = request.out_features

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""

    @abc.abstractmethod
    def matrix(self, use: Use) -> Tensor:
        """The matrix of this use, dense: (out_features, in_features)."""


class Bank(nn.Module, abc.ABC):
    """A stack of E matrices (out_features, in_features), one for each expert, without biases."""

    def __init__(self, request: ProjectionRequest, experts: int) -> None:
        super().__init__()
        self.parts = request.parts
        self.experts = experts
        self.in_features = request.in_features
        self.out_features = request.out_features

    @abc.abstractmethod
    def matrices(self, use: Use) -> Tensor:
        """The matrices of this use: (E, out_features, in_features)."""


@dataclass(frozen=True, slots=True)
class WeightScope:
    """Where a weight source is opened.

    Attributes:
        n_embd: model width C.
        steps: recursion steps of the innermost `recur` at or around that place; 1 without one.
        level: which of `use.steps` is the step of that `recur`; None without one.
        component: builds a nested source (a field declared with `Kind("weights")`) at this place.
    """

    n_embd: int
    steps: int = 1
    level: int | None = None
    component: Callable[[Any], WeightSource] | None = None

    def step(self, use: Use) -> int:
        """The recursion step of a use, from 0; may be beyond `steps` if asked for more depth."""
        return 0 if self.level is None else use.steps[self.level]


class WeightSource(nn.Module, abc.ABC):
    """A weight source: how the matrices of the blocks in its scope come to be.

    Constructed with `(scope, *, fields)`. Parameters that blocks share live on the source, which
    is a module of the scope that opened it; at run time it arrives as `use.weights`. What it
    computes once for a whole pass it keeps in `use.once`.
    """

    same_cost: bool = True
    """Whether every use costs the same, so that equal blocks need to be counted only once."""

    separates: bool = True
    """Whether it keeps documents apart, by `use.documents`; so does one that reads no tokens."""

    @abc.abstractmethod
    def projection(self, request: ProjectionRequest) -> Projection:
        """The projection for `request`; raises FieldError or ValueError if it can't be had."""

    def bank(self, request: ProjectionRequest, experts: int) -> Bank:
        """As many matrices as `experts`, each as in `request`; raises ValueError as above."""
        raise ValueError(f"{type(self).__name__} weights have no stacks of matrices for experts")

    def prepare(self, use: Use) -> None:
        """Compute into `use.once` what this use's step needs and no token changes.

        It holds lists of tensors. Their FLOPs are counted once for each pass.
        """

    def new_state(self, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> State:
        """What each use of a block keeps for this source between cached calls.

        It is in `use.state` beside the mixer's own, so names begin with `weights.`; batch first.
        """
        return {}
