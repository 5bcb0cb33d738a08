"""A parametrization of one's own: blocks shrink by the root of the depth (depth-muP).

Yang et al. 2023, arXiv 2310.02244, table 1, with Adam: branches and rates in blocks by L^-0.5.
"""

from typing import Annotated

from annotated_types import Gt

from strawberry.contracts import Initial, Parametrization, StepScale
from strawberry.plugin import hookimpl


class DepthMuP(Parametrization):
    """muP for Adam over widths, from a width of `base`, and L^-0.5 over depths.

    Args:
        base: width at which rates are the recipe's.
        std: deviation of the table and of the head.
    """

    sees_growth = True

    def __init__(self, site, *, base: Annotated[int, Gt(0)] = 32, std: float = 0.2):
        super().__init__(site)
        self.times, self.std, self.root = site.n_embd / base, std, site.depth**-0.5

    def initial(self, weight):
        if weight.kind in ("embedding", "head"):
            return Initial(self.std, multiplier=1 / self.times if weight.kind == "head" else 1.0)
        falls = self.times**-0.5 if weight.role == "output" else 1.0
        return Initial(falls * weight.fan_in**-0.5)

    def step(self, weight, update):
        by_width = weight.kind != "head" and weight.grows[0]
        rate = (1 / self.times if by_width else 1.0) * (self.root if weight.in_block else 1.0)
        return StepScale(rate, decay=1 / rate)

    def branch(self):
        return self.root


@hookimpl
def strawberry_register(registry):
    registry.parametrization("depth_mup", DepthMuP)
