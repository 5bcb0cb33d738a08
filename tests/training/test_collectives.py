"""Collectives and shards in one process."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from strawberry.contracts import all_gather, full_tensor, is_sharded, shard_like, to_local


@pytest.fixture
def one_rank() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_gathering_has_no_gradient_in_one_process() -> None:
    """As with several: detached, and contiguous."""
    x = torch.ones(2, 3, requires_grad=True).T
    assert not all_gather(x).requires_grad
    assert all_gather(x).is_contiguous()


@pytest.mark.usefixtures("one_rank")
def test_shards_of_one_rank_are_shards() -> None:
    """A DTensor on one rank becomes a plain tensor, and back, as on several."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

    plain = torch.arange(6.0).view(3, 2)
    shard = distribute_tensor(plain, init_device_mesh("cpu", (1,)), [Shard(0)])
    assert is_sharded(shard)
    assert not is_sharded(plain)
    for tensor in (full_tensor(shard), to_local(shard)):
        assert not isinstance(tensor, DTensor)
        assert torch.equal(tensor, plain)
    placed = shard_like(plain, shard)
    assert isinstance(placed, DTensor)
    assert torch.equal(full_tensor(placed), plain)
