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

from typing import Literal

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
from strawberry.errors import FieldError


class FactorizedProjection(Projection):
    """A view of the source's factors, with its own bias."""

    def __init__(self, request: ProjectionRequest, basis: str, width: int) -> None:
        super().__init__(request)
        self.basis = basis
        self.block = str(request.block)
        self.thin = request.in_features == width
        self.bias = nn.Parameter(torch.zeros(request.out_features)) if request.bias else None
        self.parameter_parts = {"bias": request.parts}

    def factors(self, use: Use) -> tuple[Tensor, Tensor]:
        """A (P, rank) and B (C, rank) from the current source."""
        return _factors(use, self.basis, self.block)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in) -> (..., out); through the rank if rows are whole, else with the matrix."""
        if not self.thin:
            return F.linear(x, self.matrix(use), self.bias)
        basis_PR, block_CR = self.factors(use)
        return F.linear(x @ block_CR, basis_PR, self.bias)

    def matrix(self, use: Use) -> Tensor:
        """(out, in), the product of the two factors, laid out row by row."""
        basis_PR, block_CR = self.factors(use)
        return (basis_PR @ block_CR.mT).reshape(self.out_features, self.in_features)

    def extra_repr(self) -> str:
        """Shape and the factors' names."""
        return f"{self.in_features} -> {self.out_features}, {self.basis} x block {self.block}"


class FactorizedBank(Bank):
    """A view of the source's factors, with the rows of all matrices stacked."""

    def __init__(self, request: ProjectionRequest, experts: int, basis: str) -> None:
        super().__init__(request, experts)
        self.basis = basis
        self.block = str(request.block)

    def matrices(self, use: Use) -> Tensor:
        """(E, out, in), the product of the two factors, laid out row by row."""
        basis_PR, block_CR = _factors(use, self.basis, self.block)
        shape = (self.experts, self.out_features, self.in_features)
        return (basis_PR @ block_CR.mT).reshape(shape)

    def expert_parameters(self, source: WeightSource) -> list[Tensor]:
        """The basis, whose rows are divided among the experts; they share the block's factor."""
        assert isinstance(source, FactorizedWeights)
        return [source.bases[self.basis]]

    def extra_repr(self) -> str:
        """Shape and the factors' names."""
        shape = f"{self.experts} x {self.in_features} -> {self.out_features}"
        return f"{shape}, {self.basis} x block {self.block}"


class FactorizedWeights(WeightSource):
    """Rank-limited matrices; parameters: rank * (sum of P over names + C for each block).

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

    def projection(self, request: ProjectionRequest) -> Projection:
        """A projection from shared factors; raises ValueError if its rows don't fit the width."""
        return FactorizedProjection(request, self._basis(request), self.n_embd)

    def bank(self, request: ProjectionRequest, experts: int) -> Bank:
        """Matrices from shared factors, as one matrix with `experts` times the rows."""
        return FactorizedBank(request, experts, self._basis(request, experts))

    def _basis(self, request: ProjectionRequest, experts: int | None = None) -> str:
        """The name of the shared factor for `request`; creates it, and the block's, if needed."""
        out, width = request.out_features, request.in_features
        size = out * width * (experts or 1)
        if size % self.n_embd:
            raise ValueError(
                f"factorized weights need out * in to be a multiple of n_embd {self.n_embd}; "
                f"{request.name} is {out} x {width}"
            )
        if request.std == 0 and self.init == "original":
            raise ValueError(f"{request.name} can't start at zero with `init: original`")
        stack = f"{experts}x" if experts else ""
        basis = f"{request.name.replace('.', '_')}_{stack}{out}x{width}"
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


def _factors(use: Use, basis: str, block: str) -> tuple[Tensor, Tensor]:
    source = use.weights
    assert isinstance(source, FactorizedWeights)
    return source.bases[basis], source.blocks[block]
