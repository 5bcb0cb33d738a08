"""Mixers that keep values for later blocks of a pass: in the memo, in `once`, on themselves."""

from typing import Any

import torch
from torch import Tensor

from strawberry.contracts import Use
from strawberry.plugin import hookimpl
from tests.referee.cheats import Honest


class InMemo(Honest):
    """In the memo: the values of the block before."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before = use.memo.get("keeper")
        use.memo["keeper"] = v
        return torch.zeros_like(v) if before is None else before


class InOnce(Honest):
    """In a list of `once`, to which each block adds: the sum of all before, whatever the tokens."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        weights: list[Tensor] = use.once.setdefault("keeper", [])
        own = self.get_parameter("value.weight").mean(0)
        weights.append(own)
        return sum(weights, torch.zeros_like(own)).expand_as(v)


class OnItself(Honest):
    """On itself, and reads it in the same call alone."""

    def seen(self, v: Tensor, use: Use) -> Tensor:
        self.last = v.cumsum(1)
        return self.last / v.shape[1]


class OnTheClass(Honest):
    """On the class, where the next block finds it: computing again finds another block's."""

    left: Tensor | None = None

    def seen(self, v: Tensor, use: Use) -> Tensor:
        before, first = OnTheClass.left, "keeper" not in use.memo
        use.memo["keeper"] = True
        OnTheClass.left = v
        return torch.zeros_like(v) if first or before is None else before.detach()


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    for keeper in (InMemo, InOnce, OnItself, OnTheClass):
        registry.add("attention", keeper.__name__, keeper)
