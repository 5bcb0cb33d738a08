"""Notice whether a model's parameters have changed, without a copy of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from strawberry.contracts import to_local

_WHOLE: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers by their bytes."""


@torch.no_grad()
def bits(model: nn.Module) -> dict[str, int]:
    """The sum of the bits of each parameter, as whole numbers; of shards this rank's."""
    named = {name: to_local(p.detach()) for name, p in model.named_parameters()}
    sums = [t.contiguous().view(_WHOLE[t.element_size()]).sum() for t in named.values()]
    return dict(zip(named, torch.stack(sums).tolist() if sums else [], strict=True))


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """The names of parameters whose bits have another sum."""
    return [name for name, total in after.items() if before.get(name, total) != total]
