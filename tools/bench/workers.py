"""Contenders in processes of their own, which take turns.

Libraries that must not share an allocator, an import or a compiler's state are still measured in
one run: each has a process that sleeps while another one is timed.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

from strawberry.runs.memory import keep_freed_memory


class Absent(Exception):  # noqa: N818 (not a mistake: a peer that is not installed)
    """A contender that can't take part here, and why."""


@dataclass(frozen=True)
class Contender:
    """The contenders.

    Attributes:
        run: what is timed.
        flops: of one run's matrix products, where they were counted.
        result: any plain result of the run, for a check that contenders agree.
        peak: bytes that its process had at most, over what its imports take, once it had run.
    """

    run: Callable[[], object]
    flops: int = 0
    result: Any = None
    peak: int = 0


Maker: TypeAlias = Callable[[], Contender]
"""Makes a contender, in its own process; must be importable by name there, such as a partial."""


class Worker:
    """A process that creates a contender, and runs it on request."""

    def __init__(self, maker: Maker, threads: int, keep_memory: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, maker, threads, keep_memory), daemon=True
        )
        self._process.start()
        theirs.close()
        kind, value = self._receive()
        self.absent: str | None = value if kind == "absent" else None
        ready = value if kind == "ready" else (0, None, 0)
        self.flops: int = ready[0]
        self.result: Any = ready[1]
        self.peak: int = ready[2]

    def __call__(self, repeats: int = 1) -> float:
        """Run it this many times, and wait; returns the CPU seconds of its process."""
        self._pipe.send(repeats)
        return float(self._receive()[1])

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def _receive(self) -> tuple[str, Any]:
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            return "absent", f"its process ended with exit code {self._process.exitcode}"
        if kind == "failed":
            raise RuntimeError(value)
        return kind, value


@contextmanager
def working(
    makers: Mapping[str, tuple[Maker, bool]], threads: int
) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Workers by name, and why those that are not among them are absent.

    A maker comes with whether its process keeps freed memory (see strawberry.runs.memory).
    """
    workers: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    try:
        for name, (maker, keep_memory) in makers.items():
            worker = Worker(maker, threads, keep_memory)
            if worker.absent is None:
                workers[name] = worker
            else:
                absent[name] = worker.absent
                worker.close()
        yield workers, absent
    finally:
        for worker in workers.values():
            worker.close()


def _serve(pipe: Connection, maker: Maker, threads: int, keep_memory: bool) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if keep_memory:
        keep_freed_memory()
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        contender = maker()
    except (ImportError, Absent) as error:
        pipe.send(("absent", str(error)))
        return
    except Exception:
        pipe.send(("failed", traceback.format_exc()))
        return
    pipe.send(("ready", (contender.flops, contender.result, contender.peak)))
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        began = time.process_time()
        try:
            for _ in range(message):
                contender.run()
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
            return
        pipe.send(("done", time.process_time() - began))


class Imports:
    """Memory of a process before it has a model; makers call `done` after their imports."""

    bytes = 0

    @classmethod
    def done(cls) -> None:
        """From here on, memory counts."""
        import torch._dynamo  # noqa: F401 (what torch's optimizers import at their first step)

        cls.bytes = _resident("VmRSS")

    @classmethod
    def peak(cls) -> int:
        """The most memory that this process has had at once, over what its imports take."""
        return _resident("VmHWM") - cls.bytes


def _resident(field: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is no such file."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
