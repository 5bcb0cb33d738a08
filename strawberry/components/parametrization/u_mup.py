"""u-muP: unit-scaled maximal updates (Blake et al. 2024, arXiv 2407.17465, table 2).

Every tensor starts with a deviation of 1; its multiplier gives its size. The residual stream is
`x + b y` with one b for all parts. The paper's weighted mean of x and y differs from it by a factor
in front of each norm, which norms divide out. Activations have no multipliers of their own.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from strawberry.contracts import (
    Initial,
    Parametrization,
    ParametrizationSite,
    StepScale,
    UpdateSize,
    Weight,
)


class UMuP(Parametrization):
    """Tensors of deviation 1, and rates near 1, that carry over widths and depths.

    A good `train.learning_rate` is between 0.1 and 4. Weight decay is scaled so that its product
    with the rate is the same at every size.

    Args:
        residual: size of what all parts of blocks add together, against the embeddings.
        logits: factor on the logits.
    """

    sees_growth = True

    def __init__(
        self,
        site: ParametrizationSite,
        *,
        residual: Annotated[float, Gt(0)] = 1.0,
        logits: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(site)
        self.residual = residual
        self.logits = logits

    def initial(self, weight: Weight) -> Initial:
        """1, and the multiplier of its role: 1, fan_in^-0.5 or fan_in^-1."""
        if weight.kind == "embedding":
            return Initial(1.0)
        if weight.kind == "head":
            return Initial(1.0, multiplier=self.logits / self.site.n_embd)
        return Initial(1.0, multiplier=weight.fan_in ** (-1.0 if weight.role == "output" else -0.5))

    def step(self, weight: Weight, update: UpdateSize) -> StepScale:
        """Adam's rates of table 2; of other updates, those that move the product as much."""
        rate = self._rate(weight, update)
        if weight.in_block and update != "gradient":
            rate *= self.site.depth**-0.5
        return StepScale(rate, 1.0 if update == "gradient" else 1 / rate)

    def _rate(self, weight: Weight, update: UpdateSize) -> float:
        if weight.kind == "embedding":
            return weight.fan_out**-0.5 if update in ("elementwise", "relative") else 1.0
        if weight.kind not in ("matrix", "bank", "head"):
            # Drawn by a component, without a multiplier, such as the matrix of a router.
            return 1 / weight.fan_in if update in ("elementwise", "relative") else 1.0
        if weight.role == "output":
            return 1.0
        elementwise = weight.fan_in**-0.5
        return {
            "elementwise": elementwise,
            "relative": elementwise,
            "orthogonal": 1 / elementwise,
            "orthogonal_rms": 1 / elementwise / max(weight.fan_in, weight.fan_out) ** 0.5,
            "gradient": 1 / elementwise**2,
        }[update]

    def branch(self) -> float:
        """What a part adds, so that all of them together add `residual`."""
        return float(self.residual * self.site.depth**-0.5)
