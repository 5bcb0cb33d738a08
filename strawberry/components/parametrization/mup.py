"""The maximal update parametrization (Yang et al. 2022, arXiv 2203.03466, table 8).

Other optimizers than Adam and SGD: the spectral condition of Yang, Simon and Bernstein 2023, arXiv
2310.17813, of which the tables are two cases: an update of a matrix has a spectral norm of about
sqrt(fan_out / fan_in).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from annotated_types import Ge

from strawberry.components.parametrization.standard import Standard
from strawberry.contracts import Initial, ParametrizationSite, StepScale, UpdateSize, Weight


class MuP(Standard):
    """Rates and starts that carry over from `base_width` to any width.

    At `base_width` it is `standard` with the same fields. With m = n_embd / base_width:

    - Hidden matrices start smaller by m^-0.5, and learn at 1/m of the rate with Adam, at the same
      rate with Muon and SGD.
    - Tables, gains and biases start and learn alike at every width.
    - The head starts and learns as the table does, and its logits are divided by m; so a head that
      is the table of embeddings is right too (microsoft/mup, issue 55).
    - Matrices whose rows alone stay as many, such as some gates, start smaller by a further m^-0.5.
    - What has no side that grows, such as a table of pairs of positions, is `standard`: the theory
      says nothing of it.

    A weight decay is scaled so that its product with the rate is the same at every width. Which
    sides grow is found by building the recipe at twice its width, by its own `scale:` rule.

    Args:
        base_width: width at which rates were found.
        base_head_width: width D0 of a head there; scores are multiplied by D0^0.5 / D. Null: heads
            keep their width, and scores are multiplied by D^-0.5.
    """

    sees_growth = True

    def __init__(
        self,
        site: ParametrizationSite,
        *,
        base_width: Annotated[int, Ge(1)] = 64,
        base_head_width: Annotated[int, Ge(1)] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(site, **shared)
        self.m = site.n_embd / base_width
        self.base_width = base_width
        self.base_head_width = base_head_width

    def initial(self, weight: Weight) -> Initial:
        """`standard` at the base width, and what the width changes."""
        initial = super().initial(weight)
        if weight.kind in ("embedding", "head"):
            std = initial.std and (self.base_width**-0.5 if self.init == "fan_in" else self.std)
            return replace(
                initial, std=std, multiplier=1 / self.m if weight.kind == "head" else 1.0
            )
        power = {"input": 0.0, "hidden": -0.5, "output": -1.0, "fixed": 0.0}[weight.role]
        if self.init == "fan_in" and weight.grows[0]:
            power += 0.5  # the fan-in has it already
        return replace(initial, std=initial.std * self.m**power)

    def step(self, weight: Weight, update: UpdateSize) -> StepScale:
        """Table 8's, with the head's multiplier; table 3's for other outputs."""
        if weight.kind == "head":
            rate = self.m if update == "gradient" else 1.0
        else:
            rate = self.m ** POWERS[update].get(weight.role, 0.0)
        decay = 1.0 if update == "gradient" else 1 / rate
        return StepScale(rate, decay, epsilon=1 / self.m)

    def score_scale(self, head_width: int) -> float | None:
        """`1 / D`, which is the usual at the base."""
        base = self.base_head_width
        return None if base is None else base**0.5 / head_width


POWERS: dict[UpdateSize, dict[str, float]] = {
    "elementwise": {"hidden": -1.0, "output": -1.0},
    "relative": {"hidden": -0.5, "output": -0.5},
    "orthogonal": {"output": -0.5},
    "orthogonal_rms": {"hidden": -0.5, "output": -1.0},
    "gradient": {"input": 1.0, "output": -1.0},
}
"""The power of the width with which a rate grows, by role; 0 if absent."""
