"""Small things that components do with tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or as it is if wider: for statistics that half precision would spoil."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def draw(tensor: Tensor, std: float, *, uniform: bool) -> None:
    """Fill a tensor at random with mean 0 and this deviation; on the meta device, do nothing."""
    if tensor.is_meta:
        return
    if uniform:
        tensor.uniform_(-(3**0.5) * std, 3**0.5 * std)
    else:
        tensor.normal_(0.0, std)
