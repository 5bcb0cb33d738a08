"""The mean of the latest weights (Kaddour 2022, LAWA, arXiv 2209.14981, section 3)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from strawberry.contracts import Averaging, RunSite, State


class Latest(Averaging):
    """The plain mean of the weights after the last `count` of every `every` steps.

    `m = (w_1 + ... + w_n) / n` over the last n weights that were taken.

    Args:
        count: how many weights, which are all kept.
        every: steps from one of them to the next.
    """

    def __init__(
        self,
        site: RunSite,
        *,
        count: Annotated[int, Ge(1)] = 5,
        every: Annotated[int, Ge(1)] = 10,
    ) -> None:
        self.copies, self.every = count, every

    def update(self, kept: State, weights: Tensor, step: int) -> None:
        """Take the place of the oldest."""
        if step % self.every == 0:
            kept[str(step // self.every % self.copies)] = weights.clone()

    def value(self, kept: State, step: int) -> Tensor | None:
        """Their mean."""
        if not kept:
            return None
        first, *others = (kept[name] for name in sorted(kept))
        mean = first.clone()
        for other in others:
            mean.add_(other)
        return mean.div_(len(kept))
