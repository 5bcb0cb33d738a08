"""What a batch comes to that several processes (ranks) share, and tensors that they hold in shards.

In one process every function here gives back what it was given.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """How many processes share each batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(x: Tensor) -> Tensor:
    """The sum of `x` over all ranks, which all have to call it; differentiable.

    A training loss is the mean over ranks, so what is nonlinear in a sum over the batch, such as
    a balance loss, has to be computed from the sum over all of it.
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
    """`x` of all ranks one after the other, alike in shape; all have to call it. No gradient."""
    if ranks() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(ranks())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def largest(count: Tensor) -> int:
    """The largest of the integers `count` (one on each rank), which all have to call it."""
    if ranks() > 1:
        count = count.clone()
        dist.all_reduce(count, dist.ReduceOp.MAX)
    return int(count)


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is held in shards, one on each rank."""
    # Looked up by name: a process without ranks need not import the machinery of shards.
    return ranks() > 1 and hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor; shares its memory."""
    return tensor.to_local() if is_shard(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is held in shards; all ranks have to call it."""
    return tensor.full_tensor() if is_shard(tensor) else tensor  # type: ignore[attr-defined]


def placed_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, which every rank has, the shard that `like` has; nothing is sent."""
    if not is_shard(like) or is_shard(tensor):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    every = [Replicate()] * mesh.ndim
    placed = DTensor.from_local(tensor.to(like.device), mesh, every, run_check=False)
    return placed.redistribute(mesh, placements)
