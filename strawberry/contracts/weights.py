"""Weight sources, and the matrices that components ask them for.

A component asks with `site.projection(...)` or `site.bank(...)` and gets a `Projection` or a
`Bank`, the same class whatever the source. It asks the source of its use for the matrix, so where
parameters live, and how a matrix follows from them, is written in the source alone.

Shapes: E experts; a matrix is (out_features, in_features), a bank (E, out_features, in_features).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        parts: the matrices among the rows. A source names the parameters that hold them, in
            `parameter_parts` of the module that has the parameters.
        multiplier: factor on its input, which is applied whatever the source; a source whose
            matrices have a size of their own refuses another one than 1.
        experts: E, for a stack of so many matrices, without biases; None for one matrix.
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
    experts: int | None = None

    @property
    def stack(self) -> tuple[int, ...]:
        """(E,), or () for one matrix."""
        return () if self.experts is None else (self.experts,)

    @property
    def shape(self) -> tuple[int, ...]:
        """(E, out_features, in_features), or (out_features, in_features)."""
        return (*self.stack, self.out_features, self.in_features)


class SourcedWeight(Component):
    """A matrix, or a stack of matrices, that a component requested from a weight source.

    The source keeps on it whatever belongs to this matrix alone: parameters, modules, names.

    Attributes:
        request: the request.
        name: of the request, such as `attention.qkv`.
        parts: the matrices among its rows.
        in_features: columns.
        out_features: rows.
        bias: its own bias (out_features,), if it has one; see `add_bias`.
    """

    def __init__(self, request: ProjectionRequest) -> None:
        super().__init__()
        self.request = request
        self.name = request.name
        self.parts = request.parts
        self.in_features = request.in_features
        self.out_features = request.out_features
        self.bias: nn.Parameter | None = None

    if TYPE_CHECKING:  # what a source keeps here is known to that source alone

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def add_bias(self) -> None:
        """Create the bias, of zeros, if one was requested."""
        if self.request.bias:
            self.bias = nn.Parameter(torch.zeros(self.out_features))
            self.parameter_parts = {**self.parameter_parts, "bias": self.parts}

    def extra_repr(self) -> str:
        """Shape, as in torch's Linear, with the number of matrices in a stack."""
        shape = " x ".join(map(str, (*self.request.stack, self.in_features)))
        return f"{shape} -> {self.out_features}, bias={self.request.bias}"


class Projection(SourcedWeight):
    """A matrix (out_features, in_features) from a weight source.

    A subclass adds something of its own, such as a convolution or a memory. If that keeps a state,
    the state is in the `use.state` of the component that calls it: the names in its `new_state`
    begin with `name`.
    """

    def __init__(self, request: ProjectionRequest | Projection) -> None:
        """For a request, or around another projection (see `Site.wrapped`), whose form it has."""
        super().__init__(request.request if isinstance(request, Projection) else request)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return use.weights.project(self, x, use)

    def matrix(self, use: Use) -> Tensor:
        """The matrix of this use, dense: (out_features, in_features)."""
        return use.weights.matrix(self, use)


class Bank(SourcedWeight):
    """A stack of E matrices (out_features, in_features), one for each expert, without biases.

    Attributes:
        experts: E.
        active_share: mean share of the experts that process a token, from 0 to 1. The component
            that asks for the bank says it, with `site.bank(..., active=...)`.
    """

    active_share: float = 1.0

    def __init__(self, request: ProjectionRequest) -> None:
        super().__init__(request)
        assert request.experts is not None
        self.experts = request.experts

    def matrices(self, use: Use) -> Tensor:
        """The matrices of this use: (E, out_features, in_features)."""
        matrices = use.weights.matrix(self, use)
        multiplier = self.request.multiplier
        return matrices if multiplier == 1 else matrices * multiplier


class Multiplied(Projection):
    """A projection of `multiplier` times its input; its bias, if any, is added as it is."""

    def __init__(self, inner: Projection) -> None:
        super().__init__(inner)
        self.inner = inner
        self.multiplier = inner.request.multiplier

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        y: Tensor = self.inner(x * self.multiplier, use)
        return y

    def matrix(self, use: Use) -> Tensor:
        """The matrix of this use, multiplied."""
        return self.inner.matrix(use) * self.multiplier


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

    Constructed with `(site, *, fields)`, a `WeightSite`. It is a module of the scope that opened
    it, so parameters that blocks share live on it; at run time it arrives as `use.weights`. What it
    computes once for a whole pass it keeps in `use.once`. Matrices whose rows have mean 0:

        class Centred(WeightSource):
            def declare(self, weight, request):
                weight.weight = drawn(*request.shape, std=request.std, uniform=request.uniform)
                weight.parameter_parts = {"weight": request.parts}
                weight.add_bias()

            def matrix(self, weight, use):
                return weight.weight - weight.weight.mean(-1, keepdim=True)

    Attributes:
        banks: whether it can provide stacks of expert matrices.
    """

    banks: bool = True

    @abc.abstractmethod
    def declare(self, weight: SourcedWeight, request: ProjectionRequest) -> None:
        """Create the parameters of a matrix or stack: on `weight` if its block owns them, or here.

        Name those that hold its rows in `parameter_parts` of the module that has them. Raises
        FieldError or ValueError if `request` is impossible.
        """

    @abc.abstractmethod
    def matrix(self, weight: SourcedWeight, use: Use) -> Tensor:
        """The matrix of this use, (out_features, in_features); for a bank (E, out, in)."""

    def bias(self, weight: SourcedWeight) -> Tensor | None:
        """The bias (out_features,), if there is one; by default the weight's own."""
        return weight.bias

    def project(self, projection: Projection, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features); override it if there is a cheaper way."""
        return F.linear(x, self.matrix(projection, use), self.bias(projection))

    def expert_parameters(self, bank: Bank) -> list[Tensor]:
        """The parameters that consist of one part for each expert of a bank.

        By default these are the bank's own. A source that has the bank's matrices itself, or gives
        it parameters which all experts use, overrides it.
        """
        return list(bank.parameters())

    def projection(self, request: ProjectionRequest) -> Projection:
        """The projection for `request`; override it for one with something of its own."""
        projection = Projection(request)
        self.declare(projection, request)
        return projection

    def bank(self, request: ProjectionRequest) -> Bank:
        """The stack for `request`; raises ValueError as `declare` does, or if there are none."""
        if not self.banks:
            name = type(self).__name__
            raise ValueError(f"{name} weights don't support stacks of expert matrices")
        bank = Bank(request)
        self.declare(bank, request)
        return bank

    def prepare(self, use: Use) -> None:
        """Compute into `use.once` the values of this use's step that no token changes.

        It holds lists of tensors. Their FLOPs are counted once for each pass.
        """
