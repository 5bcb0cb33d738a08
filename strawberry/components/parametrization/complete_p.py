"""CompleteP: rates that carry over widths and depths.

Dey et al. 2025, arXiv 2505.01618, table 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from annotated_types import Ge, Le

from strawberry.components.parametrization.mup import MuP
from strawberry.contracts import ParametrizationSite, StepScale, UpdateSize, Weight


class CompleteP(MuP):
    """`mup`, and blocks that add l^-alpha of what they compute, with l = depth / base_depth.

    `x + l^-alpha y`, with y what a block computes.

    Everything in a block learns at l^(alpha - 1) of the rate. A recurring block counts at every
    step; the theory has no rule for shared weights.

    Args:
        base_depth: unrolled depth at which rates were found, in blocks.
        alpha: 1 lets every layer learn features at any depth; 0.5 is the rule of depth-muP.
    """

    def __init__(
        self,
        site: ParametrizationSite,
        *,
        base_depth: Annotated[int, Ge(1)] = 2,
        alpha: Annotated[float, Ge(0.5), Le(1)] = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(replace(site, depth=base_depth), **shared)
        self.ratio = site.depth / base_depth
        self.alpha = alpha

    def step(self, weight: Weight, update: UpdateSize) -> StepScale:
        """That of `mup`, by depth in blocks."""
        step = super().step(weight, update)
        if not weight.in_block:
            return step
        # A gradient is smaller by the branch already, which Adam and Muon undo.
        power = self.alpha - 1 + (self.alpha if update == "gradient" else 0.0)
        factor = self.ratio**power
        decay = step.decay if update == "gradient" else step.decay / factor
        return StepScale(step.rate * factor, decay, step.epsilon * self.ratio**-self.alpha)

    def branch(self) -> float:
        """l^-alpha."""
        return float(self.ratio**-self.alpha)
