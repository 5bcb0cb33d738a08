"""Writing checkpoints of tensors that ranks hold in shards: torch's distributed format (DCP).

Each rank writes its shards while training continues. When all are done, a manifest with a SHA-256
of every file completes the folder, which then gets its name. All ranks must see the same file
system.
"""

from __future__ import annotations

import queue
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import async_save

from strawberry.errors import StrawberryError
from strawberry.ranks.world import RemoteFailure, World
from strawberry.runs import checkpoint
from strawberry.runs.checkpoint import SHARDS, CheckpointData, CheckpointPolicy


class ShardWriter:
    """Saves sharded checkpoints in the background, one at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Of its own, so that what it says isn't taken for something of a training step.
        self.group = dist.new_group(backend="gloo")
        self.pool = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None
        self.whole: queue.SimpleQueue[tuple[int, Path]] = queue.SimpleQueue()

    def save(self, folder: Path, moment: CheckpointData, keep: CheckpointPolicy) -> None:
        """Copy the tensors and start to write; raises StrawberryError if the last one failed."""
        self.wait()
        temporary = self.world.by_main(lambda: checkpoint.begin(folder, moment))
        parts = {"model": moment.model, "optimizer": moment.optimizer}
        tensors = {f"{kind}/{k}": t for kind, part in parts.items() for k, t in part.items()}
        written = async_save(tensors, checkpoint_id=temporary / SHARDS, process_group=self.group)
        step = moment.state["step"]
        self.pending = self.pool.submit(self._seal, written, temporary, step, keep)

    def wait(self) -> None:
        """Wait until the current one is complete on disk; all ranks have to call it.

        Raises StrawberryError if it could not be written.
        """
        if self.pending is None:
            return
        try:
            self.pending.result()
            error = None
        except (OSError, RuntimeError, StrawberryError, CheckpointException) as caught:
            error = f"can't write a checkpoint: {caught}"
        self.pending = None
        errors = self.world.gather(error)
        if error is not None:
            raise StrawberryError(error)
        for other in filter(None, errors):
            raise RemoteFailure(other, StrawberryError.exit_code)

    def done(self) -> list[tuple[int, Path]]:
        """Steps and folders of checkpoints completed since the last call."""
        files = []
        while not self.whole.empty():
            files.append(self.whole.get())
        return files

    def _seal(self, written: Any, temporary: Path, step: int, keep: CheckpointPolicy) -> None:
        """After all ranks have written: hash each rank's own files, and rename the folder."""
        written.result()
        mine = f"__{self.world.rank}_*"
        own = {f"{SHARDS}/{p.name}": checkpoint.digest(p) for p in (temporary / SHARDS).glob(mine)}
        every: list[Any] | None = [None] * self.world.size if self.world.main else None
        dist.gather_object(own, every, group=self.group)
        if every is not None:
            known = {name: value for part in every for name, value in part.items()}
            self.whole.put((step, checkpoint.seal(temporary, keep, known)))
