"""The connection to Ray, and how much room a cluster has."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strawberry.ablate import STOPPING
from strawberry.errors import StrawberryError

STORE = 80 * 2**20
"""Bytes of Ray's object store on a cluster of our own: the least; nothing is kept there."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what will be the default, without a warning
}
"""Environment variables that Ray reads; those that the user has set stay."""


def connect(address: str | None) -> bool:
    """Connect to a cluster, or start one on this machine; False if there was a connection already.

    Raises StrawberryError if there is no cluster at the address.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return False
    fields: dict[str, Any] = {"address": address}
    if address is None:
        here = own_resources()
        fields = {
            "address": "local",
            "num_cpus": here["CPU"],
            "num_gpus": here["GPU"],
            "object_store_memory": STORE,
            "include_dashboard": False,
        }
        if sys.platform == "linux":  # Ray takes 127.0.0.1 for the network's, and listens there
            fields["_node_ip_address"] = "127.0.0.2"
    try:
        with _undisturbed():
            ray.init(**fields, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "on this machine" if address is None else f"at {address}"
        text = str(error).partition("\n")[0]
        raise StrawberryError(f"there is no Ray cluster {where}: {text}") from error
    _hush()
    return True


def disconnect() -> None:
    """Let the cluster go, and end it if it was started here."""
    import ray

    with _undisturbed():
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class Nodes:
    """The resources of each node that is alive, and the ids of those that are dead."""

    alive: Sequence[Mapping[str, float]]
    dead: frozenset[str] = frozenset()


def nodes() -> Nodes:
    """Those of the cluster, as Ray knows them."""
    import ray

    alive = ray.nodes()  # type: ignore[no-untyped-call]
    return Nodes(
        [node["Resources"] for node in alive if node["Alive"]],
        frozenset(node["NodeID"] for node in alive if not node["Alive"]),
    )


def own_resources() -> dict[str, float]:
    """Those of this machine, as Ray would name them."""
    import torch

    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return {"CPU": len(cores), "GPU": torch.cuda.device_count()}


def places(resources: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """The number of trials with enough resources: none spans two nodes, or two GPUs."""
    total = 0
    for node in resources:
        by_cpu = math.floor(node.get("CPU", 0) / cpus + 1e-9)
        by_gpu = by_cpu if not gpus else int(node.get("GPU", 0)) * math.floor(1 / gpus + 1e-9)
        total += min(by_cpu, by_gpu)
    return total


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep Ray from taking signals, whose handlers are the sweep's, and from warning of itself."""
    kept = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in STOPPING:
            kept[number] = signal.getsignal(number)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # not the main thread, where Ray sets none either
                for number, handler in kept.items():
                    signal.signal(number, handler)


def _hush() -> None:
    """Ray prints on standard output what a node said as it died, and has no switch for that."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None
