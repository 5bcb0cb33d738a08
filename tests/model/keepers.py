"""Mixers that keep values for later blocks of a pass: in the memo, in `once`, on themselves."""

from typing import Any

import torch
from torch import Tensor

from strawberry.contracts import Attention, Site, Use
from strawberry.plugin import hookimpl


class Keeper(Attention):
    """The mean of the values so far, and of what an earlier block left, through which it learns."""

    cacheable = False

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.value = site.projection("value", site.n_embd, site.n_embd)
        self.out = site.projection("out", site.n_embd, site.n_embd, output=True)

    def forward(self, x: Tensor, use: Use) -> Tensor:
        v = self.value(x, use)
        count = torch.arange(1, x.shape[1] + 1, device=x.device).to(x)[:, None]
        return self.out(v.cumsum(1) / count + self.kept(v, use), use)

    def kept(self, v: Tensor, use: Use) -> Tensor:
        raise NotImplementedError


class InMemo(Keeper):
    """In the memo: the values of the block before."""

    def kept(self, v: Tensor, use: Use) -> Tensor:
        before = use.memo.get("keeper")
        use.memo["keeper"] = v
        return torch.zeros_like(v) if before is None else before


class InOnce(Keeper):
    """In a list of `once`, to which each block adds: the sum of all before, whatever the tokens."""

    def kept(self, v: Tensor, use: Use) -> Tensor:
        weights: list[Tensor] = use.once.setdefault("keeper", [])
        own = self.get_parameter("value.weight").mean(0)
        weights.append(own)
        return sum(weights, torch.zeros_like(own)).expand_as(v)


class OnItself(Keeper):
    """On itself, and reads it in the same call alone."""

    def kept(self, v: Tensor, use: Use) -> Tensor:
        self.last = v.cumsum(1)
        return self.last / v.shape[1]


class OnTheClass(Keeper):
    """On the class, where the next block finds it: computing again finds another block's."""

    left: Tensor | None = None

    def kept(self, v: Tensor, use: Use) -> Tensor:
        before, first = OnTheClass.left, "keeper" not in use.memo
        use.memo["keeper"] = True
        OnTheClass.left = v
        return torch.zeros_like(v) if first or before is None else before.detach()


@hookimpl
def strawberry_register(registry: Any) -> None:
    """All of them, by the names of their classes."""
    for keeper in (InMemo, InOnce, OnItself, OnTheClass):
        registry.add("attention", keeper.__name__, keeper)
