"""Collectives over the ranks of a run, and conversions of sharded tensors (DTensor).

With one process the collectives communicate nothing and return the process's own value.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes (ranks) that share each batch; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of `x` over all ranks, all of which have to call it; differentiable.

    A training loss is the mean over ranks. So a nonlinear function of a sum over the batch, such as
    a balance loss, has to be computed from the sum over the whole batch.
    """
    return x if world_size() == 1 else _Summed.apply(x)  # type: ignore[no-untyped-call]


class _Summed(torch.autograd.Function):
    """The sum over ranks of tensors (...), whose gradient is the sum of all ranks' gradients."""

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


def all_gather(x: Tensor) -> Tensor:
    """Concatenate the `x` of all ranks along the first dimension, without gradient.

    All ranks have to call it, with equal shapes.
    """
    x = x.detach().contiguous()
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def of_main(x: Tensor) -> Tensor:
    """The `x` of the first rank, on all ranks, which have to call it with equal shapes.

    The result is on the CPU: it is for numbers that decide what a pass does.
    """
    if world_size() == 1:
        return x
    on_cuda = dist.get_backend() == "nccl"
    x = x.detach().cuda() if on_cuda else x.detach().clone()
    dist.broadcast(x, src=0)
    return x.cpu()


def all_reduce_max(count: Tensor) -> int:
    """Maximum over all ranks of an integer tensor with one element; all have to call it."""
    if world_size() > 1:
        count = count.clone()
        dist.all_reduce(count, dist.ReduceOp.MAX)
    return int(count)


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which each rank has a shard."""
    # Looked up by name, because importing DTensor takes long and most processes have none.
    return hasattr(tensor, "full_tensor")


def to_local(tensor: Tensor) -> Tensor:
    """This rank's shard, which shares the tensor's memory; a plain tensor is returned as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor put together from the shards of all ranks, which all have to call it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Shard a plain tensor, equal on all ranks, in the layout of `like`; nothing is communicated.

    Returns the tensor itself if `like` is not sharded, or if the tensor already is.
    """
    if not is_sharded(like) or is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    everywhere = [Replicate()] * mesh.ndim
    replicated = DTensor.from_local(tensor.to(like.device), mesh, everywhere, run_check=False)
    return replicated.redistribute(mesh, placements)
