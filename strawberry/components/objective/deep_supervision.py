"""A loss after each recursion step (Jolicoeur-Martineau 2025, TRM, arXiv 2510.04871, section 4)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor

from strawberry.contracts import Batch, Learned, Objective, ObjectiveSite
from strawberry.errors import FieldError


class DeepSupervision(Objective):
    """The state after recursion steps, through the last norm and the head, predicts the next token.

    Between two of these losses no gradient flows, so that the memory of one is enough for the way
    back. The paper takes an optimizer step after each; here they are one step, of their mean.

    Args:
        every: a loss after each so many steps, counted from the first; the last step has one too.
        growth: how much more each loss counts than the one before it.
        cut: whether the state that goes on is cut off from its gradient after each loss.
    """

    def __init__(
        self,
        site: ObjectiveSite,
        *,
        every: Annotated[int, Ge(1)] = 1,
        growth: Annotated[float, Gt(0)] = 1.0,
        cut: bool = True,
    ) -> None:
        super().__init__()
        if site.n_steps < 2:
            raise FieldError("", "nothing recurs here: it needs a `recur` whose sharing is a cycle")
        if every >= site.n_steps:
            raise FieldError("every", f"there are {site.n_steps} steps, and so one loss alone")
        self.every, self.growth, self.cut = every, growth, cut

    def forward(self, batch: Batch) -> Learned:
        """The weighted mean; the loss after step N is logged as `loss_step_N`."""
        if not batch.training:
            plain = batch.cross_entropy(batch.states().hidden)
            return Learned(plain.total, plain.cross_entropy)
        states = batch.states(steps=True, cut=self.every if self.cut else 0)
        last = batch.cross_entropy(states.hidden)
        before = range(self.every, len(states.steps), self.every)
        weights = [self.growth**number for number in range(len(before) + 1)]
        total, parts = weights[-1] / sum(weights) * last.total, dict[str, Tensor]()
        for step, weight in zip(before, weights, strict=False):
            loss = batch.cross_entropy(batch.normalised(states.steps[step - 1]))
            total = total + weight / sum(weights) * loss.total
            parts[f"loss_step_{step}"] = loss.cross_entropy
        return Learned(total, last.cross_entropy, parts)
