"""What optimizers share: the type of a decay rate, and parameter groups by what shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Lt

from strawberry.contracts.training import ParameterInfo

Beta: TypeAlias = Annotated[float, Ge(0), Lt(1)]
Decay: TypeAlias = Literal["matrices", "all"]


def decay_groups(
    infos: Sequence[ParameterInfo], weight_decay: float, decay: Decay
) -> list[dict[str, Any]]:
    """Parameter groups for torch: those that shrink by `weight_decay`, and those that stay.

    `matrices` shrinks what has two dimensions and more, `all` everything. No group is empty.
    """
    decayed = [i.parameter for i in infos if decay == "all" or i.parameter.ndim >= 2]
    plain = [i.parameter for i in infos if decay != "all" and i.parameter.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
