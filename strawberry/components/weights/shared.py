"""One set of matrices for all blocks of a scope, as in ALBERT (arXiv 1909.11942, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from strawberry.contracts import (
    Bank,
    MatrixLayout,
    ProjectionRequest,
    SourcedWeight,
    Use,
    WeightSite,
    WeightSource,
    drawn,
)


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

    def declare(self, weight: SourcedWeight, request: ProjectionRequest) -> None:
        """Let the weight use the matrix of that name and shape; create it if needed."""
        name = f"{request.name.replace('.', '_')}_{'x'.join(map(str, request.shape))}"
        weight.shared = name
        if name not in self.matrices:
            self.matrices[name] = drawn(*request.shape, std=request.std, uniform=request.uniform)
            self.parameter_parts[f"matrices.{name}"] = request.parts
        if request.bias and name not in self.biases:
            self.biases[name] = nn.Parameter(torch.zeros(request.out_features))
            self.parameter_parts[f"biases.{name}"] = request.parts

    def matrix(self, weight: SourcedWeight, use: Use) -> Tensor:
        """The matrix, or the stack, that all blocks share."""
        return self.matrices[weight.shared]

    def bias(self, weight: SourcedWeight) -> Tensor | None:
        """The bias that all blocks share."""
        return self.biases[weight.shared] if weight.request.bias else None

    def expert_parameters(self, bank: Bank) -> list[Tensor]:
        """The stack, which all blocks share."""
        return [self.matrices[bank.shared]]
