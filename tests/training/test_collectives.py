"""Collectives and shards in one process."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from strawberry.contracts import gathered, is_shard, local, placed_like, whole


@pytest.fixture
def one_rank() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_gathering_has_no_gradient_in_one_process() -> None:
    """As with several: detached, and contiguous."""
    x = torch.ones(2, 3, requires_grad=True).T
    assert not gathered(x).requires_grad
    assert gathered(x).is_contiguous()


@pytest.mark.usefixtures("one_rank")
def test_shards_of_one_rank_are_shards() -> None:
    """A DTensor on one rank becomes a plain tensor, and back, as on several."""
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh

    plain = torch.arange(6.0).view(3, 2)
    shard = distribute_tensor(plain, init_device_mesh("cpu", (1,)), [Shard(0)])
    assert is_shard(shard)
    assert not is_shard(plain)
    for tensor in (whole(shard), local(shard)):
        assert not isinstance(tensor, DTensor)
        assert torch.equal(tensor, plain)
    placed = placed_like(plain, shard)
    assert isinstance(placed, DTensor)
    assert torch.equal(whole(placed), plain)
