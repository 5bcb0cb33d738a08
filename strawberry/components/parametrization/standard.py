"""The standard parametrization: starts by fan-in, or by one deviation; one rate for all.

Normal: Radford et al. 2019 (GPT-2), section 2.3; zero outputs: Zhang et al. 2019 (Fixup), arXiv
1901.09321, section 3.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt

from strawberry.contracts import Initial, Parametrization, ParametrizationSite, Weight


class Standard(Parametrization):
    """Starts that a width alone decides, and the same learning rate for every parameter.

    Args:
        init: `fan_in` (uniform with deviation fan_in^-0.5) or `normal` (deviation `std`, smaller by
            sqrt(2 depth) where a matrix writes to the residual stream).
        std: standard deviation for `normal`.
        zero_outputs: start matrices that write to the residual stream, and an untied head, at
            zero, so that every block starts as the identity.
    """

    def __init__(
        self,
        site: ParametrizationSite,
        *,
        init: Literal["fan_in", "normal"] = "fan_in",
        std: Annotated[float, Gt(0)] = 0.02,
        zero_outputs: bool = False,
    ) -> None:
        super().__init__(site)
        self.init = init
        self.std = std
        self.zero_outputs = zero_outputs

    def initial(self, weight: Weight) -> Initial:
        """By fan-in, of a table by its width; or the same for all."""
        if self.zero_outputs and (weight.output or weight.kind == "head"):
            return Initial(0.0, uniform=self.init == "fan_in" and weight.kind != "head")
        if self.init == "fan_in":
            table = weight.kind in ("embedding", "head")
            return Initial((self.site.n_embd if table else weight.fan_in) ** -0.5, uniform=True)
        # GPT-2's: the residual stream sums 2 L outputs.
        return Initial(self.std * (2 * self.site.depth) ** -0.5 if weight.output else self.std)
