"""Launch the ranks of a run on this machine, with torch's launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from pathlib import Path

from strawberry.errors import StrawberryError
from strawberry.stopping import STOPPING, heeded, stopped_by

OWN = ("--nproc", "--max-restarts", "--run-dir", "--resume")
"""Options of the command that its processes get in another form, or not at all."""


class RankFailed(StrawberryError):  # noqa: N818 (nobody's mistake)
    """A process of a run died without a report."""

    exit_code = 1


def launch(folder: Path, *, resume: bool, nproc: int, max_restarts: int) -> int:
    """Run this command in `nproc` processes; returns their common exit code.

    Raises RankFailed if one of them died.

    Args:
        folder: the run folder.
        resume: whether to resume the run in it.
        nproc: number of processes.
        max_restarts: number of restarts of all processes when one dies.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    command = ["-m", "strawberry", *without(sys.argv[1:], OWN), "--run-dir", str(folder)]
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        signals_to_handle="SIGQUIT",  # the others are ours
    )
    # What went wrong is said in our own words, once.
    for name in logging.root.manager.loggerDict:  # each has a level of its own
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))

    def pass_on(number: int) -> None:
        raise SignalException(f"got signal {number}", signal.Signals(number))

    try:
        with stopped_by(pass_on, heeded()):
            elastic_launch(config, sys.executable)(*command, *(["--resume"] if resume else []))
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        return verdict(codes, folder)
    except SignalException as caught:
        return 128 + caught.sigval
    return 0


def verdict(codes: dict[int, int], folder: Path) -> int:
    """The common exit code of ranks that ended with `codes`, if they reported it.

    Raises RankFailed if one was killed or crashed, because the others ended as a consequence.
    """
    # What the launcher itself ended has its signal, and follows from what happened before.
    for rank, code in sorted(codes.items()):
        if code < 0 and -code not in STOPPING:
            raise RankFailed(
                f"rank {rank} was killed by {signal.Signals(-code).name}; --resume continues "
                f"from the last checkpoint of {folder}"
            )
    return max((code for code in codes.values() if code > 0), default=1)


def without(arguments: list[str], options: tuple[str, ...]) -> list[str]:
    """The arguments without these options and their values; `--resume` has none."""
    kept: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        name = argument.partition("=")[0]
        if name not in options:
            kept.append(argument)
        elif name == argument and name != "--resume":
            del queue[:1]
    return kept
