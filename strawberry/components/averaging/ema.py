"""The exponential moving average of weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

Polyak and Juditsky: doi 10.1137/0330046. Tarvainen and Valpola: arXiv 1703.01780, eq. 2.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor

from strawberry.contracts import Averaging, RunSite, State, wide


class EMA(Averaging):
    """`m <- d m + (1 - d) w` after every `every` steps, from the first weights on.

    Args:
        decay: d. The average is over about `every / (1 - d)` steps.
        every: steps from one update to the next.
        warmup: while n updates are done, d is at most `(1 + n) / (10 + n)`, so that the first
            weights are forgotten soon.
    """

    def __init__(
        self,
        site: RunSite,
        *,
        decay: Annotated[float, Ge(0), Lt(1)] = 0.99,
        every: Annotated[int, Ge(1)] = 1,
        warmup: bool = True,
    ) -> None:
        self.decay, self.every, self.warmup = decay, every, warmup

    def update(self, kept: State, weights: Tensor, step: int) -> None:
        """Move the mean towards the weights."""
        if step % self.every:
            return
        if "mean" not in kept:
            kept["mean"] = wide(weights).clone()
            return
        done = step // self.every
        decay = min(self.decay, (1 + done) / (10 + done)) if self.warmup else self.decay
        kept["mean"].mul_(decay).add_(weights, alpha=1 - decay)

    def value(self, kept: State, step: int) -> Tensor | None:
        """The mean."""
        return kept.get("mean")
