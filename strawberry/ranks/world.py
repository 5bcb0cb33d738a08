"""The processes of a run: their identity and their collectives.

The launcher (torchrun, or `strawberry train --nproc`) sets the number of processes and the rank in
the environment. GPU tensors use NCCL, everything else gloo.
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
"""Timeout of a rank's wait for the others; a dead rank is noticed at once."""

_LEFT: list[dist.ProcessGroup | None] = []
"""Keep finished process groups: releasing the last reference inside DDP's reducer, with the GIL
held, can deadlock with a gloo thread that needs the GIL."""


class RemoteFailure(StrawberryError):  # noqa: N818 (another rank has the error)
    """Another rank failed and reported it; `exit_code` is that of its error."""

    told = True

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RankLost(StrawberryError):  # noqa: N818 (nobody's mistake)
    """Another rank died, so this one can't continue."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class World:
    """The ranks of a run; by default one process.

    Attributes:
        rank: this process's rank.
        size: number of ranks.
        restarts: number of restarts by the launcher.
    """

    rank: int = 0
    size: int = 1
    restarts: int = 0

    @property
    def main(self) -> bool:
        """True for the rank that writes and reports for all."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()

    def most(self, number: int) -> int:
        """Maximum over ranks."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)  # on the CPU: no rank has to wait for its device
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over ranks."""
        return tensor if self.size == 1 else self.sum(tensor) / self.size

    def gather(self, value: R) -> list[R]:
        """The values of all ranks, on every rank; any picklable object."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def by_main(self, action: Callable[[], R]) -> R:
        """Run `action` on rank 0 and return its result on every rank.

        An error there raises StrawberryError everywhere; on other ranks it is a RemoteFailure.
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

    def main_first(self, action: Callable[[], R]) -> R:
        """What `action` returns on this rank, after rank 0 has done it; raises as `by_main` does.

        For what leaves files behind that the others read.
        """
        results: list[R] = []
        self.by_main(lambda: results.append(action()))
        return results[0] if results else action()

    def share(self, rows: range) -> range:
        """The rows of this rank; ranks differ by at most one row."""
        return rows[len(rows) * self.rank // self.size : len(rows) * (self.rank + 1) // self.size]


class HasWorld(Protocol):
    """A base for objects that belong to the ranks of a world."""

    world: World


def by_main(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that rank 0 runs for all ranks, with `World.by_main`."""

    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.world.by_main(lambda: method(self, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Connect the ranks in this context; yields the world and this process's device.

    Raises RankLost if a rank dies meanwhile.
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
        message = "another rank died; --resume continues from the last checkpoint"
        raise RankLost(f"rank {rank}: {message}") from error
    finally:
        # Whoever leaves in good order has waited for the others before: see `Session.leave`.
        if dist.is_initialized():
            _LEFT.append(dist.group.WORLD)
            dist.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    """Return whether an error is a connection error; gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
