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
    SourcedWeight,
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

    def __init__(self, request: ProjectionRequest, rank: int, steps: int) -> None:
        super().__init__()
        out, width, stack = request.out_features, request.in_features, request.stack
        rank = min(rank, out, width)
        self.down = nn.ParameterList()
        self.up = nn.ParameterList()
        for _ in range(steps):
            self.down.append(drawn(*stack, rank, width, std=width**-0.5, uniform=True))
            self.up.append(nn.Parameter(torch.zeros(*stack, out, rank)))
        self.parameter_parts = {f"up.{step}": request.parts for step in range(steps)}


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

    def declare(self, weight: SourcedWeight, request: ProjectionRequest) -> None:
        """The nested source's matrix or stack, with differences."""
        stacked = isinstance(weight, Bank)
        weight.base = self.of.bank(request) if stacked else self.of.projection(request)
        weight.deltas = Deltas(request, self.rank, self.site.steps)

    def matrix(self, weight: SourcedWeight, use: Use) -> Tensor:
        """The nested source's matrix or stack plus this step's difference, `scale B A`."""
        down, up = self._pair(weight, use)
        return self.of.matrix(weight.base, self._inside(use)) + (up @ down) * self.scale

    def project(self, projection: Projection, x: Tensor, use: Use) -> Tensor:
        """(..., in_features) -> (..., out_features), the difference through its rank."""
        down, up = self._pair(projection, use)
        delta = F.linear(F.linear(x, down), up) * self.scale
        base: Tensor = projection.base(x, self._inside(use))
        return base + delta

    def expert_parameters(self, bank: Bank) -> list[Tensor]:
        """Those of the nested source's stack, and the differences, which are stacks themselves."""
        return [*self.of.expert_parameters(bank.base), *bank.deltas.parameters()]

    def prepare(self, use: Use) -> None:
        """Compute the nested source's values of a pass."""
        self.of.prepare(self._inside(use))

    def _pair(self, weight: SourcedWeight, use: Use) -> tuple[Tensor, Tensor]:
        """A and B of this use's step; steps beyond the trained ones use the last pair."""
        step = min(self.site.step(use), self.site.steps - 1)
        return weight.deltas.down[step], weight.deltas.up[step]

    def _inside(self, use: Use) -> Use:
        """The use as the nested source sees it."""
        return replace(use, weights=self.of)
