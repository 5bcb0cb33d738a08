"""Weight sources: projections, stacks of matrices, and the sources that provide them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from strawberry.contracts.component import Component
from strawberry.contracts.parts import MatrixLayout
from strawberry.contracts.use import Use


@dataclass(frozen=True, slots=True)
class ProjectionRequest:
    """A component's request to its weight source.

    Attributes:
        block: number of the block, over the model in the order of construction.
        name: the component's kind and its name for the matrix, such as `attention.qkv`.
        out_features: rows.
        in_features: columns.
        bias: add a bias.
        std: initial standard deviation; 0 for a matrix of zeros. A source that can't provide one,
            or can't learn from it, raises ValueError.
        uniform: uniform (of that standard deviation) rather than normal.
        parts: the matrices among the rows. A source names its parameters that hold them, by an
            attribute `parameter_parts = {"weight": request.parts}` of the parameter's module.
        multiplier: factor on its input, which the site applies, whatever the source; a source whose
            matrices have a size of their own refuses another one than 1.
    """

    block: int
    name: str
    out_features: int
    in_features: int
    bias: bool
    std: float
    uniform: bool
    parts: MatrixLayout
    multiplier: float = 1.0

    def multiplied(self, projection: Projection) -> Projection:
        """The projection with the multiplier; itself if that is 1."""
        return projection if self.multiplier == 1 else Multiplied(projection, self.multiplier)

    def multiplied_bank(self, bank: Bank) -> Bank:
        """The stack with the multiplier; itself if that is 1."""
        return bank if self.multiplier == 1 else MultipliedBank(self, bank)


class Projection(Component, abc.ABC):
    """A matrix (out_features, in_features) from a weight source.

    One that keeps a state finds it in the `use.state` of the component that calls it: the names in
    its `new_state` begin with `name`.

    Attributes:
        name: of the request, such as `attention.qkv`.
        parts: the matrices among its rows.
        in_features: columns.
        out_features: rows.
    """

    name: str
    parts: MatrixLayout
    in_features: int
    out_features: int

    def __init__(self, request: ProjectionRequest | Projection) -> None:
        """For a request, or around another projection (see `Site.wrapped`), whose form it has."""
        super().__init__()
        self.name = request.name
        self.parts = request.parts
        self.in_features = request.in_features
        self.out_features = request.out_features

    @abc.abstractmethod
    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""

    @abc.abstractmethod
    def matrix(self, use: Use) -> Tensor:
        """The matrix of this use, dense: (out_features, in_features)."""


class Bank(Component, abc.ABC):
    """A stack of E matrices (out_features, in_features), one for each expert, without biases.

    Attributes:
        active_share: mean share of the experts that process a token, from 0 to 1. The component
            that asks for the bank says it, with `site.bank(..., active=...)`.
    """

    active_share: float = 1.0

    def __init__(self, request: ProjectionRequest, experts: int) -> None:
        super().__init__()
        self.parts = request.parts
        self.experts = experts
        self.in_features = request.in_features
        self.out_features = request.out_features

    @abc.abstractmethod
    def matrices(self, use: Use) -> Tensor:
        """The matrices of this use: (E, out_features, in_features)."""

    def expert_parameters(self, source: WeightSource) -> list[Tensor]:
        """The parameters that consist of one part for each expert.

        By default these are the bank's own. A bank whose matrices live on the weight source, or
        that keeps parameters which all experts use, overrides it.

        Args:
            source: the weight source of the block, as in `use.weights`.
        """
        return list(self.parameters())


class Multiplied(Projection):
    """A projection of `multiplier` times its input; its bias, if any, is added as it is."""

    def __init__(self, inner: Projection, multiplier: float) -> None:
        super().__init__(inner)
        self.inner = inner
        self.multiplier = multiplier

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        y: Tensor = self.inner(x * self.multiplier, use)
        return y

    def matrix(self, use: Use) -> Tensor:
        """The matrix of this use, multiplied."""
        return self.inner.matrix(use) * self.multiplier


class MultipliedBank(Bank):
    """A stack of matrices, each multiplied."""

    def __init__(self, request: ProjectionRequest, inner: Bank) -> None:
        super().__init__(request, inner.experts)
        self.inner = inner
        self.multiplier = request.multiplier

    def matrices(self, use: Use) -> Tensor:
        """The matrices of this use: (E, out_features, in_features)."""
        return self.inner.matrices(use) * self.multiplier

    def expert_parameters(self, source: WeightSource) -> list[Tensor]:
        """Those of the stack itself."""
        return self.inner.expert_parameters(source)


@dataclass(frozen=True, slots=True)
class WeightSite:
    """The place where a weight source is opened.

    Attributes:
        n_embd: model width C.
        steps: recursion steps of the innermost `recur` at or around that place; 1 without one.
        level: index in `use.steps` of the step of that `recur`; None without one.
        make_component: builds a nested component at this place; `component` calls it.
    """

    n_embd: int
    steps: int = 1
    level: int | None = None
    make_component: Callable[[Any, WeightSite], Any] | None = None

    def component(self, spec: Any) -> Any:
        """A nested component, such as a source: the value of a field declared with `Kind(...)`."""
        assert self.make_component is not None, "a source builds nested ones as it is constructed"
        return self.make_component(spec, self)

    def step(self, use: Use) -> int:
        """The recursion step of a use, from 0; may exceed `steps` at greater depth."""
        return 0 if self.level is None else use.steps[self.level]


class WeightSource(Component, abc.ABC):
    """A weight source: provides the matrices of the blocks in its scope.

    Constructed with `(site, *, fields)`, a `WeightSite`. Parameters that blocks share live on the
    source, which is a module of the scope that opened it; at run time it arrives as `use.weights`.
    What it computes once for a whole pass it keeps in `use.once`.
    """

    @abc.abstractmethod
    def projection(self, request: ProjectionRequest) -> Projection:
        """The projection for `request`; raises FieldError or ValueError if it is impossible."""

    def bank(self, request: ProjectionRequest, experts: int) -> Bank:
        """`experts` matrices, each as in `request`; raises ValueError as above."""
        raise ValueError(f"{type(self).__name__} weights don't support stacks of expert matrices")

    def prepare(self, use: Use) -> None:
        """Compute into `use.once` the values of this use's step that no token changes.

        It holds lists of tensors. Their FLOPs are counted once for each pass.
        """
