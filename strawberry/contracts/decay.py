"""Common parts of optimizers: decay rates, and parameter groups by weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Lt

from strawberry.contracts.training import OptimizerSite, OptimizerSource, ParameterInfo

Beta: TypeAlias = Annotated[float, Ge(0), Lt(1)]
Decay: TypeAlias = Literal["matrices", "all"]


def decay_groups(
    infos: Sequence[ParameterInfo], weight_decay: float, decay: Decay
) -> list[dict[str, Any]]:
    """Parameter groups for torch: those with `weight_decay`, and those without.

    `matrices` decays parameters with at least two dimensions, `all` everything. No group is empty.
    """
    decayed = [i.parameter for i in infos if decay == "all" or i.parameter.ndim >= 2]
    plain = [i.parameter for i in infos if decay != "all" and i.parameter.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class DecayingSource(OptimizerSource):
    """An optimizer with weight decay; a subclass's constructor passes `**shared` to it.

    Args:
        lr: peak learning rate; null takes `train.learning_rate`.
        weight_decay: parameters shrink by this fraction of the learning rate in each step.
        decay: parameters with weight decay: `matrices` (at least two dimensions) or `all`.
    """

    def __init__(
        self,
        site: OptimizerSite,
        *,
        lr: Annotated[float, Gt(0)] | None = None,
        weight_decay: Annotated[float, Ge(0)] = 0.1,
        decay: Decay = "matrices",
    ) -> None:
        super().__init__(site)
        self.lr = lr
        self.weight_decay = weight_decay
        self.decay: Decay = decay

    def groups(self, infos: Sequence[ParameterInfo]) -> list[dict[str, Any]]:
        """Parameter groups for torch, by weight decay."""
        return decay_groups(infos, self.weight_decay, self.decay)
