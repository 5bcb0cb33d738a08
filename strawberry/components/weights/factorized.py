"""Low-rank weights whose output basis is shared by all blocks of a scope.

A matrix W (out, in) is stored as rows of length C, the model width: P = out * in / C of them, in
row-major order. Block l's rows for the projection named n are `A_n B_l^T`. A_n (P, rank) is shared
by every block that requests the same name and shape. B_l (C, rank) is the block's own and the same
for all of its projections. The original project stacks the A_n of QKV, SwiGLU and output projection
in one tensor and the B_l in another; the matrices are the same.

For an optimizer, A_n is as many matrices as there are among the rows of W, each with its share of
the P rows, if those are whole.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import (
    Bank,
    MatrixLayout,
    Projection,
    ProjectionRequest,
    SourcedWeight,
    Use,
    WeightSite,
    WeightSource,
    drawn,
)
from strawberry.errors import FieldError


class FactorizedWeights(WeightSource):
    """Rank-limited matrices; parameters: rank * (sum of P over names + C for each block).

    `W = A_n B_l^T`, in rows of the model's width: A_n is shared by all blocks, and B_l is block
    l's own, the same for all of its projections.

    Args:
        rank: inner dimension of the factors; null takes a quarter of `n_embd`.
        init: `corrected` starts every matrix at the standard deviation of a full matrix; `original`
            draws both factors at fan-in `rank`, as the original project does, which is twice too
            large for a quarter rank.
    """

    def __init__(
        self,
        site: WeightSite,
        *,
        rank: int | None = None,
        init: Literal["corrected", "original"] = "corrected",
    ) -> None:
        super().__init__()
        if rank is not None and rank < 1:
            raise FieldError("rank", f"must be positive, got {rank}")
        self.n_embd = site.n_embd
        self.rank = rank if rank is not None else max(1, site.n_embd // 4)
        self.init = init
        self.bases = nn.ParameterDict()
        self.blocks = nn.ParameterDict()
        self.parameter_parts: dict[str, MatrixLayout] = {}
        self.parameter_transposed: tuple[str, ...] = ()

    def declare(self, weight: SourcedWeight, request: ProjectionRequest) -> None:
        """Create the factors, and a bias of the weight's own.

        The rows of all matrices in a stack are stacked. Raises ValueError if rows don't fit the
        width.
        """
        weight.basis = self._basis(request)
        weight.block = str(request.block)
        weight.add_bias()

    def matrix(self, weight: SourcedWeight, use: Use) -> Tensor:
        """The product of the two factors, laid out row by row."""
        basis_PR, block_CR = self.bases[weight.basis], self.blocks[weight.block]
        return (basis_PR @ block_CR.mT).reshape(weight.request.shape)

    def project(self, projection: Projection, x: Tensor, use: Use) -> Tensor:
        """(..., in) -> (..., out); through the rank if rows are whole, else with the matrix."""
        if projection.in_features != self.n_embd:
            return super().project(projection, x, use)
        basis_PR, block_CR = self.bases[projection.basis], self.blocks[projection.block]
        return F.linear(x @ block_CR, basis_PR, projection.bias)

    def expert_parameters(self, bank: Bank) -> list[Tensor]:
        """The basis, whose rows are divided among the experts; they share the block's factor."""
        return [self.bases[bank.basis]]

    def _basis(self, request: ProjectionRequest) -> str:
        """The name of the shared factor for `request`; creates it, and the block's, if needed."""
        out, width = request.out_features, request.in_features
        size = math.prod(request.shape)
        if size % self.n_embd:
            raise ValueError(
                f"factorized weights need out * in to be a multiple of n_embd {self.n_embd}; "
                f"{request.name} is {out} x {width}"
            )
        if request.std == 0 and self.init == "original":
            raise ValueError(f"{request.name} can't start at zero with `init: original`")
        basis = f"{request.name.replace('.', '_')}_{'x'.join(map(str, request.shape))}"
        if basis not in self.bases:
            # W's entries are sums of `rank` products, so their deviation is std_A * sqrt(rank) *
            # std_B; with B at fan-in rank, std_A alone has to be the deviation that was asked for.
            std = request.std if self.init == "corrected" else self.rank**-0.5
            self.bases[basis] = drawn(size // self.n_embd, self.rank, std=std, uniform=True)
            parts = request.parts.resized(width, self.n_embd)
            if parts is not None:
                self.parameter_parts[f"bases.{basis}"] = parts
        if str(request.block) not in self.blocks:
            self.blocks[str(request.block)] = drawn(
                self.n_embd, self.rank, std=self.rank**-0.5, uniform=True
            )
            self.parameter_transposed += (f"blocks.{request.block}",)
        return basis
