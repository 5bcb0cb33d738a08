"""Ranks without processes: who takes which rows, and what a lost connection becomes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist

from strawberry.ranks import world as module
from strawberry.ranks.world import RankLost, World, joined
from tests.faults.conftest import Figure, figure

__all__ = ["figure"]

BATCH, STEPS = 8, 12


def seen(size_at: Callable[[int], int], count: int = BATCH) -> Counter[int]:
    """How often each row is taken, by as many ranks at each step as `size_at` says."""
    found: Counter[int] = Counter()
    for step in range(STEPS):
        rows = range(step * count, (step + 1) * count)
        for rank in range(size_at(step)):
            found.update(World(rank, size_at(step)).share(rows))
    return found


@pytest.mark.faults(9)
def test_each_sample_is_seen_once_however_many_ranks(figure: Figure) -> None:
    """With 1, 2, 4 and 8 ranks in turn, each sequence of each step belongs to one of them."""
    found = seen(lambda step: (1, 2, 4, 8)[step % 4])
    once = sum(count == 1 for count in found.values())
    figure(BATCH * STEPS, once, "samples seen once", missing=BATCH * STEPS - len(found))


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_an_uneven_batch_is_shared_too(count: int) -> None:
    """Each row belongs to one of four ranks, and none has two more than another."""
    assert seen(lambda step: 4, count) == dict.fromkeys(range(count * STEPS), 1)
    sizes = [len(World(rank, 4).share(range(count))) for rank in range(4)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.faults(9, control=True)
def test_ranks_that_take_the_same_rows_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each takes the first of them, some are seen twice and others never."""
    monkeypatch.setattr(World, "share", lambda world, rows: rows[: len(rows) // world.size])
    found = seen(lambda step: 2)
    assert set(found.values()) == {2}
    assert len(found) == BATCH * STEPS // 2


@contextlib.contextmanager
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as a rank that is connected to nobody."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module, "rendezvous", lambda url: iter([(dist.HashStore(), 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    with joined(torch.device("cpu")) as (world, _):
        assert (world.rank, world.size) == (1, 2)
        yield


GONE = "[gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1234"


@pytest.mark.faults(7)
def test_a_connection_that_closes_is_a_lost_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, exit code 1, and how to go on; other errors stay what they are."""
    told = pytest.raises(RankLost, match="rank 1: another rank died; --resume")
    with told as caught, second_of_two(monkeypatch):
        raise RuntimeError(GONE)
    assert caught.value.exit_code == 1
    with pytest.raises(RuntimeError, match="shapes"), second_of_two(monkeypatch):
        raise RuntimeError("shapes don't agree")


@pytest.mark.faults(7, control=True)
def test_untold_a_lost_rank_would_be_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known for a lost connection leaves as the error that it was."""
    monkeypatch.setattr(module, "_is_lost", lambda error: False)
    with pytest.raises(RuntimeError, match="Connection closed"), second_of_two(monkeypatch):
        raise RuntimeError(GONE)
