"""No normalisation."""

from __future__ import annotations

from torch import Tensor

from strawberry.contracts import Norm, NormSite


class NoNorm(Norm):
    """Returns its input, for ablations of the norms."""

    def __init__(self, site: NormSite) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) -> the same."""
        return x
