"""The plain weight source: every block owns its matrices."""

from __future__ import annotations

from torch import Tensor

from strawberry.contracts import ProjectionRequest, SourcedWeight, Use, WeightSource, drawn


class OwnedWeights(WeightSource):
    """Gives each block its own matrices; a shared block (`recur`) uses them at every step."""

    def declare(self, weight: SourcedWeight, request: ProjectionRequest) -> None:
        """A new dense matrix or stack, and a bias."""
        weight.weight = drawn(*request.shape, std=request.std, uniform=request.uniform)
        weight.parameter_parts = {"weight": request.parts}
        weight.add_bias()

    def matrix(self, weight: SourcedWeight, use: Use) -> Tensor:
        """The matrix, or the stack."""
        return weight.weight
