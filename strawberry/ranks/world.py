"""The processes of a run: who they are, and how they come to agree.

Whoever starts them (torchrun, or `strawberry train --nproc`) says in the environment how many there
are and which one this is. Tensors on a GPU travel by NCCL, all else by gloo.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from strawberry.errors import StrawberryError

R = TypeVar("R")
P = ParamSpec("P")
S = TypeVar("S", bound="HasWorld")

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others; one that died is noticed at once."""

_LEFT: list[dist.ProcessGroup | None] = []
"""Groups that are done with. DDP's reducer would drop the last reference to its group with the GIL
held, and wait for a thread of gloo's that may want the GIL to drop a tensor: for ever."""


class RemoteFailure(StrawberryError):  # noqa: N818 (another rank has the error)
    """Another rank failed, and has said so; `exit_code` is that of its error."""

    told = True

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RankLost(StrawberryError):  # noqa: N818 (nobody's mistake)
    """Another rank is gone, so this one can't go on."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class World:
    """The ranks of a run; the default is one process that is all of it.

    Attributes:
        rank: which one this is.
        size: how many there are.
        restarts: how often the launcher has started them anew.
    """

    rank: int = 0
    size: int = 1
    restarts: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes and speaks for all."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()

    def most(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)  # on the CPU: no rank has to wait for its device
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over ranks."""
        return tensor if self.size == 1 else self.sum(tensor) / self.size

    def gather(self, value: R) -> list[R]:
        """The values of all ranks, on every rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def by_main(self, action: Callable[[], R]) -> R:
        """What `action` returns on rank 0, on every rank.

        Raises StrawberryError everywhere if it does there; the others' is RemoteFailure.
        """
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        error: StrawberryError | None = None
        if self.main:
            try:
                outcome[0] = action()
            except StrawberryError as caught:
                error = caught
                outcome[1] = (str(caught), caught.exit_code)
        dist.broadcast_object_list(outcome, src=0)
        if error is not None:
            raise error
        if outcome[1] is not None:
            raise RemoteFailure(*outcome[1])
        result: R = outcome[0]
        return result

    def share(self, rows: range) -> range:
        """Which rows are this rank's: as many as any other's, or one more or less."""
        return rows[len(rows) * self.rank // self.size : len(rows) * (self.rank + 1) // self.size]


class HasWorld(Protocol):
    """What belongs to the ranks of a world."""

    world: World


def by_main(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that rank 0 runs for all ranks, as `World.by_main` does."""

    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.world.by_main(lambda: method(self, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """The world of this process, and the device that is its own; within it ranks are connected.

    Raises RankLost if a rank goes away meanwhile.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield World(), device
        return
    if str(device) == "cuda":  # none in particular: each rank has its own
        index = int(os.environ.get("LOCAL_RANK", "0"))
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    # nccl is CUDA's; torch has no backend of another accelerator that we could have tried.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    store, rank, size = next(rendezvous("env://"))
    # torchrun's store outlives a restart: addresses in it may be those of ranks that are gone.
    store = PrefixStore(f"attempt {restarts}", store)
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        yield World(rank, size, restarts), device
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        message = "another rank is gone; --resume goes on from the last checkpoint"
        raise RankLost(f"rank {rank}: {message}") from error
    finally:
        # Whoever leaves in good order has waited for the others before: see `Session.leave`.
        if dist.is_initialized():
            _LEFT.append(dist.group.WORLD)
            dist.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    """Whether an error is that of a connection; gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
