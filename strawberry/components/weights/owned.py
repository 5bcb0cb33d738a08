"""The plain weight source: every block owns its matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import (
    Bank,
    Projection,
    ProjectionRequest,
    Use,
    WeightSite,
    WeightSource,
    drawn,
)


class OwnedProjection(Projection):
    """A dense matrix and an optional bias."""

    def __init__(self, request: ProjectionRequest) -> None:
        super().__init__(request)
        shape = (request.out_features, request.in_features)
        self.weight = drawn(*shape, std=request.std, uniform=request.uniform)
        self.bias = nn.Parameter(torch.zeros(request.out_features)) if request.bias else None
        self.parameter_parts = {"weight": request.parts, "bias": request.parts}

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def matrix(self, use: Use) -> Tensor:
        """The matrix."""
        return self.weight

    def extra_repr(self) -> str:
        """Shape, as in torch's Linear."""
        return f"{self.in_features} -> {self.out_features}, bias={self.bias is not None}"


class OwnedBank(Bank):
    """A dense stack (E, out, in)."""

    def __init__(self, request: ProjectionRequest, experts: int) -> None:
        super().__init__(request, experts)
        shape = (experts, request.out_features, request.in_features)
        self.weight = drawn(*shape, std=request.std, uniform=request.uniform)
        self.parameter_parts = {"weight": request.parts}

    def matrices(self, use: Use) -> Tensor:
        """The stack."""
        return self.weight

    def extra_repr(self) -> str:
        """Shape."""
        return f"{self.experts} x {self.in_features} -> {self.out_features}"


class OwnedWeights(WeightSource):
    """Gives each block its own matrices; a shared block (`recur`) uses them at every step."""

    def __init__(self, site: WeightSite) -> None:
        super().__init__()

    def projection(self, request: ProjectionRequest) -> Projection:
        """A new dense projection."""
        return OwnedProjection(request)

    def bank(self, request: ProjectionRequest, experts: int) -> Bank:
        """A new dense stack."""
        return OwnedBank(request, experts)
