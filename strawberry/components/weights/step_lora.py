"""A low-rank update of a shared matrix for each recursion step.

LoRA: Hu et al. 2021, arXiv 2106.09685, eq. 3. One pair for each step of a recursion: Relaxed
Recursive Transformers, Bae et al. 2024, arXiv 2410.20672, section 2.3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from strawberry.contracts import (
    Bank,
    Component,
    Projection,
    ProjectionRequest,
    Use,
    WeightSite,
    WeightSource,
    drawn,
)
from strawberry.plugin import Kind
from strawberry.recipe.spec import ComponentSpec


class Deltas(Component):
    """The low-rank pairs of a matrix: for each recursion step A (rank, in) and B (out, rank).

    For a bank both have a leading dimension of experts. B starts at zero, so that the update is
    zero at first; A starts at random, so that B has a gradient.
    """

    def __init__(
        self, request: ProjectionRequest, stack: tuple[int, ...], source: StepLoRAWeights
    ) -> None:
        super().__init__()
        out, width = request.out_features, request.in_features
        rank = min(source.rank, out, width)
        self.down = nn.ParameterList()
        self.up = nn.ParameterList()
        for _ in range(source.site.steps):
            self.down.append(drawn(*stack, rank, width, std=width**-0.5, uniform=True))
            self.up.append(nn.Parameter(torch.zeros(*stack, out, rank)))
        self.parameter_parts = {f"up.{step}": request.parts for step in range(len(self.up))}

    def at(self, use: Use) -> tuple[Tensor, Tensor]:
        """A and B of this use's step; steps beyond the trained ones use the last pair."""
        step = min(_source(use).site.step(use), len(self.down) - 1)
        return self.down[step], self.up[step]

    def dense(self, use: Use) -> Tensor:
        """`scale B A`."""
        down, up = self.at(use)
        return (up @ down) * _source(use).scale


class StepLoRAProjection(Projection):
    """The nested source's projection, and a low-rank one for each step."""

    def __init__(self, request: ProjectionRequest, source: StepLoRAWeights) -> None:
        super().__init__(request)
        self.base = source.of.projection(request)
        self.deltas = Deltas(request, (), source)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        down, up = self.deltas.at(use)
        delta = F.linear(F.linear(x, down), up) * _source(use).scale
        return self.base(x, _inside(use)) + delta

    def matrix(self, use: Use) -> Tensor:
        """The nested source's matrix plus this step's difference."""
        return self.base.matrix(_inside(use)) + self.deltas.dense(use)


class StepLoRABank(Bank):
    """The nested source's stack, and low-rank differences of each of its matrices."""

    def __init__(self, request: ProjectionRequest, experts: int, source: StepLoRAWeights) -> None:
        super().__init__(request, experts)
        self.base = source.of.bank(request, experts)
        self.deltas = Deltas(request, (experts,), source)

    def matrices(self, use: Use) -> Tensor:
        """The nested source's stack plus this step's differences."""
        return self.base.matrices(_inside(use)) + self.deltas.dense(use)

    def expert_parameters(self, source: WeightSource) -> list[Tensor]:
        """Those of the nested source's stack, and the differences, which are stacks themselves."""
        assert isinstance(source, StepLoRAWeights)
        return [*self.base.expert_parameters(source.of), *self.deltas.parameters()]


class StepLoRAWeights(WeightSource):
    """`W + (alpha / rank) B_r A_r` with a pair A_r, B_r for each recursion step r.

    W is the nested source's matrix, the same at every step unless that source says otherwise. All B
    start at zero, so the model starts as the nested source alone. Steps beyond the trained ones use
    the last step's pair.

    Args:
        rank: of each difference; less where a matrix has fewer rows or columns.
        alpha: the differences are scaled by alpha / rank; null takes `rank`, so a scale of 1.
        of: the source of W.
    """

    def __init__(
        self,
        site: WeightSite,
        *,
        rank: Annotated[int, Ge(1)] = 8,
        alpha: Annotated[float, Gt(0)] | None = None,
        of: Annotated[ComponentSpec, Kind("weights")] = "strawberry/owned",  # type: ignore[assignment]
    ) -> None:
        super().__init__()
        if site.steps == 1:
            raise ValueError(
                "it needs at least 2 recursion steps; open this weight source at a `recur` of 2 "
                "or more"
            )
        self.site = replace(site, make_component=None)  # a copy that can be pickled
        self.rank = rank
        self.scale = 1.0 if alpha is None else alpha / rank
        self.of: WeightSource = site.component(of)
        self.same_cost = self.of.same_cost
        self.separates = self.of.separates

    def projection(self, request: ProjectionRequest) -> Projection:
        """The nested source's projection with differences."""
        return StepLoRAProjection(request, self)

    def bank(self, request: ProjectionRequest, experts: int) -> Bank:
        """The nested source's stack with differences."""
        return StepLoRABank(request, experts, self)

    def prepare(self, use: Use) -> None:
        """Compute the nested source's values of a pass."""
        self.of.prepare(replace(use, weights=self.of))


def _source(use: Use) -> StepLoRAWeights:
    source = use.weights
    assert isinstance(source, StepLoRAWeights)
    return source


def _inside(use: Use) -> Use:
    """The use as the nested source sees it."""
    return replace(use, weights=_source(use).of)
