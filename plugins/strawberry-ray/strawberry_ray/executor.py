"""Trials on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le

from strawberry.contracts import Events, Executor, ExecutorSite, FinishedJob, Job
from strawberry.errors import FieldError, StrawberryError
from strawberry_ray import cluster
from strawberry_ray.rounds import Round, Settings


class Ray(Executor):
    """The nodes of a Ray cluster, which share the ablation's folder by the same path.

    Each trial is a separate process on some node. Trials of a lost node continue elsewhere, from
    their last checkpoint; late writers of them are refused. If this process ends, they save and
    stop. A trial's output is in `log.txt` of its folder, and its node in `node`.

    Args:
        address: the cluster's, as `host:6379`; `auto` finds the one that this machine is a node of,
            null starts one on this machine alone.
        cpus: cores of a trial.
        gpus: share of a GPU that a trial has; null takes a whole one where there are GPUs, else 0.
        jobs: the most trials at once; null takes as many as there is room for.
        silence: seconds without a logged step, evaluation or checkpoint until it counts as hanging.
        retries: how often a trial is tried again after its node was lost.
    """

    def __init__(
        self,
        site: ExecutorSite,
        *,
        address: str | None = None,
        cpus: Annotated[int, Ge(1)] = 1,
        gpus: Annotated[float, Ge(0), Le(1)] | None = None,
        jobs: Annotated[int, Ge(1)] | None = None,
        silence: Annotated[float, Gt(0)] = 1800.0,
        retries: Annotated[int, Ge(0)] = 3,
    ) -> None:
        if address is not None and address.startswith("ray://"):
            text = "is a Ray client's; run this on a node, with address: auto"
            raise FieldError("address", text)
        self.address = address
        self.cpus = cpus
        self.gpus = gpus
        self.jobs = jobs
        self.silence = silence
        self.retries = retries
        self._connected = False
        self._slots: int | None = None

    @property
    def slots(self) -> int:
        """The cluster's capacity when it is first asked."""
        if self._slots is None:
            if self.address is None:
                resources: Sequence[Mapping[str, float]] = [cluster.own_resources()]
            else:
                before = self._connected
                self._connect()
                resources = cluster.nodes().alive
                if not before:
                    self.close()
            self._slots = max(1, self._room(resources))
        return self._slots

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._connected:
            cluster.disconnect()
            self._connected = False

    def run(self, jobs: Sequence[Job], events: Events) -> Iterator[FinishedJob]:
        """Each trial wherever Ray finds room."""
        self._connect()
        alive = cluster.nodes().alive
        if not self._room(alive):
            text = f"no node of the Ray cluster has {self.cpus} CPU"
            text += f" and {self._share(alive):g} GPU for a trial; change cpus, gpus or the cluster"
            raise StrawberryError(text)
        settings = Settings(
            cpus=self.cpus,
            gpus=self._share(alive),
            jobs=self.jobs,
            silence=self.silence,
            retries=self.retries,
        )
        return Round(settings, jobs, events).run()

    def _connect(self) -> None:
        if not self._connected:
            self._connected = cluster.connect(self.address)

    def _share(self, resources: Sequence[Mapping[str, float]]) -> float:
        """The share of a GPU that a trial has on these nodes."""
        if self.gpus is not None:
            return self.gpus
        return float(any(node.get("GPU", 0) for node in resources))

    def _room(self, resources: Sequence[Mapping[str, float]]) -> int:
        room = cluster.places(resources, self.cpus, self._share(resources))
        return room if self.jobs is None else min(room, self.jobs)
