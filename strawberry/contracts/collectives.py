"""Collectives over ranks, and helpers for sharded tensors; no-ops in one process.

In one process every function returns its argument.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """Number of processes that share each batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(x: Tensor) -> Tensor:
    """Sum of `x` over all ranks, all of which have to call it; differentiable.

    A training loss is the mean over ranks. So a nonlinear function of a sum over the batch, such as
    a balance loss, has to be computed from the sum over the whole batch.
    """
    return x if ranks() == 1 else _Summed.apply(x)  # type: ignore[no-untyped-call]


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 (torch calls it)
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004 (the same)
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def gathered(x: Tensor) -> Tensor:
    """`x` of all ranks, concatenated, with equal shapes; all ranks have to call it. No gradient."""
    x = x.detach().contiguous()
    if ranks() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(ranks())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def largest(count: Tensor) -> int:
    """Maximum of the integers `count` (one on each rank); all ranks have to call it."""
    if ranks() > 1:
        count = count.clone()
        dist.all_reduce(count, dist.ReduceOp.MAX)
    return int(count)


def is_shard(tensor: Tensor) -> bool:
    """Return whether a tensor is sharded, with a shard on each rank."""
    # Looked up by name, because importing DTensor takes long and most processes have none.
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor; shares its memory."""
    return tensor.to_local() if is_shard(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """The unsharded tensor; all ranks have to call it."""
    return tensor.full_tensor() if is_shard(tensor) else tensor  # type: ignore[attr-defined]


def placed_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The shard of an unsharded tensor in the layout of `like`, without communication."""
    if not is_shard(like) or is_shard(tensor):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    every = [Replicate()] * mesh.ndim
    placed = DTensor.from_local(tensor.to(like.device), mesh, every, run_check=False)
    return placed.redistribute(mesh, placements)
