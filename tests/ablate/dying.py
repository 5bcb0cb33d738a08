"""A one-file plugin: an FFN that fails in its fourth training pass, in one of many ways."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from strawberry.check.dies import Dies
from strawberry.contracts import Site
from strawberry.plugin import Registrar, hookimpl


def is_killed(x: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def crashes(x: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGSEGV)
    return x


def hangs(x: Tensor) -> Tensor:
    time.sleep(600)
    return x


def runs_out_of_memory(x: Tensor) -> NoReturn:
    raise torch.OutOfMemoryError("on purpose")


def diverges(x: Tensor) -> Tensor:
    return x * float("nan")


def leaves(x: Tensor) -> NoReturn:
    raise SystemExit(3)


def fills_the_disk(x: Tensor) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def cannot_be_pickled(x: Tensor) -> NoReturn:
    raise type("Odd", (Exception,), {"__reduce__": None})("on purpose")


def shouts(x: Tensor) -> Tensor:
    """Megabytes of errors, and nothing wrong."""
    for _ in range(50):
        sys.stderr.write("x" * 100_000)
    return x


class Fault(Dies):
    """Fails as it is told to."""

    ways: ClassVar[Mapping[str, Callable[[Tensor], Tensor]]] = {
        **Dies.ways,
        "is killed": is_killed,
        "crashes": crashes,
        "hangs": hangs,
        "runs out of memory": runs_out_of_memory,
        "diverges": diverges,
        "leaves": leaves,
        "fills the disk": fills_the_disk,
        "can't be pickled": cannot_be_pickled,
        "shouts": shouts,
    }

    def __init__(self, site: Site, *, way: str = "raises") -> None:
        super().__init__(site, way=way, passes=3)


@hookimpl
def strawberry_register(registry: Registrar) -> None:
    """Register it."""
    registry.ffn("fault", Fault)
