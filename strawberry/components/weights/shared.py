"""One set of matrices for all blocks of a scope, as in ALBERT (arXiv 1909.11942, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import (
    Bank,
    MatrixLayout,
    Projection,
    ProjectionRequest,
    Use,
    WeightSite,
    WeightSource,
    drawn,
)


class SharedProjection(Projection):
    """A view of a matrix of the source, and of its optional bias."""

    def __init__(self, request: ProjectionRequest, name: str) -> None:
        super().__init__(request)
        self.name = name
        self.biased = request.bias

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        bias = _source(use).biases[self.name] if self.biased else None
        return F.linear(x, self.matrix(use), bias)

    def matrix(self, use: Use) -> Tensor:
        """The matrix that all blocks share."""
        return _source(use).matrices[self.name]

    def extra_repr(self) -> str:
        """Shape and name."""
        return f"{self.in_features} -> {self.out_features}, bias={self.biased}, {self.name}"


class SharedBank(Bank):
    """A view of a stack of the source."""

    def __init__(self, request: ProjectionRequest, experts: int, name: str) -> None:
        super().__init__(request, experts)
        self.name = name

    def matrices(self, use: Use) -> Tensor:
        """The stack that all blocks share."""
        return _source(use).matrices[self.name]

    def expert_parameters(self, source: WeightSource) -> list[Tensor]:
        """The stack, which lives on the source."""
        assert isinstance(source, SharedWeights)
        return [source.matrices[self.name]]

    def extra_repr(self) -> str:
        """Shape and name."""
        return f"{self.experts} x {self.in_features} -> {self.out_features}, {self.name}"


class SharedWeights(WeightSource):
    """Requests of the same name and shape get the same matrix, and the same bias.

    The blocks may differ in everything else, such as their norms. If they differ in a matrix's
    shape, they have one for each shape. The first request determines its initialisation, and the
    matrices among its rows.
    """

    def __init__(self, site: WeightSite) -> None:
        super().__init__()
        self.matrices = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        self.parameter_parts: dict[str, MatrixLayout] = {}

    def projection(self, request: ProjectionRequest) -> Projection:
        """A projection with the matrix of that name and shape."""
        name = self._name(request, ())
        if request.bias and name not in self.biases:
            self.biases[name] = nn.Parameter(torch.zeros(request.out_features))
            self.parameter_parts[f"biases.{name}"] = request.parts
        return SharedProjection(request, name)

    def bank(self, request: ProjectionRequest, experts: int) -> Bank:
        """The stack of that name and shape."""
        return SharedBank(request, experts, self._name(request, (experts,)))

    def _name(self, request: ProjectionRequest, stack: tuple[int, ...]) -> str:
        """The name of the shared matrix; creates it if needed."""
        shape = (*stack, request.out_features, request.in_features)
        name = f"{request.name.replace('.', '_')}_{'x'.join(map(str, shape))}"
        if name not in self.matrices:
            self.matrices[name] = drawn(*shape, std=request.std, uniform=request.uniform)
            self.parameter_parts[f"matrices.{name}"] = request.parts
        return name


def _source(use: Use) -> SharedWeights:
    source = use.weights
    assert isinstance(source, SharedWeights)
    return source
