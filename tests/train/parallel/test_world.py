"""Ranks without processes: who takes which rows, and what a lost connection becomes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.distributed as dist

from strawberry.data import Dataset
from strawberry.data.contracts import Ids, Split
from strawberry.train.device import Machine
from strawberry.train.parallel import world as module
from strawberry.train.parallel.world import RankLost, Shard, World, joined
from tests.faults.conftest import Figure, figure

__all__ = ["figure"]

BATCH, STEPS = 8, 12


class Numbered(Dataset):
    """A data set whose sequences are their own numbers."""

    tokenizer = None
    vocab_size = BATCH * STEPS
    fingerprint = "numbered"
    exact = False

    def n_tokens(self, split: Split) -> int | None:
        """As many as there are sequences."""
        return self.vocab_size

    def bytes_per_token(self, split: Split) -> float | None:
        """Not known."""
        return None

    def batch(
        self, split: Split, step: int, *, batch_size: int, block_size: int, seed: int
    ) -> tuple[Ids, Ids]:
        """The numbers of the step, (B, T)."""
        numbers = np.arange(step * batch_size, (step + 1) * batch_size)
        x = np.repeat(numbers[:, None], block_size, axis=1)
        return x, x


def seen(size_at: Callable[[int], int]) -> Counter[int]:
    """How often each sequence is trained on, by as many ranks at each step as `size_at` says."""
    found: Counter[int] = Counter()
    for step in range(STEPS):
        size = size_at(step)
        for rank in range(size):
            shard = Shard(Numbered(), World(rank, size))
            x, y = shard.batch("train", step, batch_size=BATCH, block_size=4, seed=1)
            assert np.array_equal(x, y)
            found.update(x[:, 0].tolist())
    return found


@pytest.mark.faults(9)
def test_each_sample_is_seen_once_however_many_ranks(figure: Figure) -> None:
    """With 1, 2, 4 and 8 ranks in turn, each sequence of each step belongs to one of them."""
    found = seen(lambda step: (1, 2, 4, 8)[step % 4])
    once = sum(count == 1 for count in found.values())
    figure(BATCH * STEPS, once, "samples seen once", missing=BATCH * STEPS - len(found))


@pytest.mark.faults(9, control=True)
def test_ranks_that_take_the_same_rows_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each takes the first of them, some are seen twice and others never."""
    monkeypatch.setattr(World, "rows", lambda world, batch: slice(0, batch // world.size))
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
    with joined(Machine(torch.device("cpu"), torch.float32, False)) as (world, _):
        assert (world.rank, world.size) == (1, 2)
        yield


GONE = "[gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1234"


@pytest.mark.faults(7)
def test_a_connection_that_closes_is_a_lost_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, exit code 1, and how to go on; other errors stay what they are."""
    told = pytest.raises(RankLost, match="rank 1: another rank is gone; --resume")
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
