"""Checkpoints of tensors that ranks hold in shards: torch's own distributed format (DCP).

Each rank writes what it has, meanwhile training goes on; once all have, the folder is sealed with
a SHA-256 of every file, as any checkpoint is, and appears under its name. It can be read by any
number of ranks, each its own part, or whole by one process. The file system has to be one that all
ranks see.

DCP's `.metadata` is a pickle. It is read only where the checkpoint's manifest vouches for it, and
then by an unpickler that knows the few classes which it is made of and nothing else.
"""

from __future__ import annotations

import io
import pickle
import queue
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from strawberry.errors import StrawberryError
from strawberry.ranks.world import RemoteFailure, World
from strawberry.runs import checkpoint
from strawberry.runs.checkpoint import SHARDS, CheckpointData, CheckpointPolicy

KNOWN = frozenset({
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.distributed.checkpoint.metadata", "BytesStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "Metadata"),
    ("torch.distributed.checkpoint.metadata", "MetadataIndex"),
    ("torch.distributed.checkpoint.metadata", "StorageMeta"),
    ("torch.distributed.checkpoint.metadata", "TensorProperties"),
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
})  # fmt: skip
"""What a `.metadata` may name, beside torch's dtypes; making one of them does nothing else."""


class ShardWriter:
    """Saves checkpoints in shards, in the background, one at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Of its own, so that what it says isn't taken for something of a training step.
        self.group = dist.new_group(backend="gloo")
        self.pool = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None
        self.whole: queue.SimpleQueue[tuple[int, Path]] = queue.SimpleQueue()

    def save(self, folder: Path, moment: CheckpointData, keep: CheckpointPolicy) -> None:
        """Copy the tensors, and begin to write; raises StrawberryError if the last one failed."""
        self.wait()
        temporary = self.world.by_main(lambda: checkpoint.begin(folder, moment))
        parts = {"model": moment.model, "optimizer": moment.optimizer}
        tensors = {f"{kind}/{k}": t for kind, part in parts.items() for k, t in part.items()}
        written = async_save(tensors, checkpoint_id=temporary / SHARDS, process_group=self.group)
        step = moment.state["step"]
        self.pending = self.pool.submit(self._seal, written, temporary, step, keep)

    def wait(self) -> None:
        """Wait until what was begun is whole on disk; all ranks have to call it.

        Raises StrawberryError if it could not be written.
        """
        if self.pending is None:
            return
        try:
            self.pending.result()
            error = None
        except (OSError, RuntimeError, StrawberryError, CheckpointException) as caught:
            error = f"a checkpoint can't be written: {caught}"
        self.pending = None
        errors = self.world.gather(error)
        if error is not None:
            raise StrawberryError(error)
        for other in filter(None, errors):
            raise RemoteFailure(other, StrawberryError.exit_code)

    def done(self) -> list[tuple[int, Path]]:
        """The steps and folders of checkpoints that have become whole since the last call."""
        files = []
        while not self.whole.empty():
            files.append(self.whole.get())
        return files

    def _seal(self, written: Any, temporary: Path, step: int, keep: CheckpointPolicy) -> None:
        """Once all ranks have written: hashes of each rank's own files, and the name."""
        written.result()
        mine = f"__{self.world.rank}_*"
        own = {f"{SHARDS}/{p.name}": checkpoint.digest(p) for p in (temporary / SHARDS).glob(mine)}
        every: list[Any] | None = [None] * self.world.size if self.world.main else None
        dist.gather_object(own, every, group=self.group)
        if every is not None:
            known = {name: value for part in every for name, value in part.items()}
            self.whole.put((step, checkpoint.seal(temporary, keep, known)))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "pathlib":  # where it was written: a name, no more
            return PurePosixPath if name == "PosixPath" else PureWindowsPath
        kind = getattr(torch, name, None) if module == "torch" else None
        if (module, name) in KNOWN or isinstance(kind, torch.dtype):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint needs")


class _Reader(FileSystemReader):
    """Reads the files of a checkpoint that its manifest vouches for, and no others."""

    def __init__(self, folder: Path, vouched: frozenset[str]) -> None:
        super().__init__(folder)
        self.folder = folder
        self.vouched = vouched

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata, without running anything that it names; raises DamagedCheckpointError."""
        if f"{SHARDS}/.metadata" not in self.vouched:
            raise checkpoint.DamagedCheckpointError(f"{self.folder}: its manifest has no .metadata")
        try:
            metadata = _Unpickler(io.BytesIO((self.folder / ".metadata").read_bytes())).load()
            files = {f"{SHARDS}/{info.relative_path}" for info in metadata.storage_data.values()}
            kinds = {type(entry) for entry in metadata.state_dict_metadata.values()}
        except (pickle.UnpicklingError, AttributeError, EOFError, OSError) as error:
            raise checkpoint.DamagedCheckpointError(f"{self.folder}: {error}") from error
        if not self.vouched.issuperset(files) or kinds - {TensorStorageMetadata}:
            raise checkpoint.DamagedCheckpointError(
                f"{self.folder}: it is not what Strawberry writes"
            )
        described: Metadata = metadata
        if described.storage_meta is None:
            described.storage_meta = StorageMeta()
        described.storage_meta.load_id = self.load_id
        return described


def read(
    folder: Path, vouched: frozenset[str], like: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """The tensors below `folder`, by what comes before and after the first slash of their names.

    Args:
        folder: what `ShardWriter` had DCP write.
        vouched: the files of the checkpoint whose hashes have been verified.
        like: parameters by name; where one is in shards, this rank reads its shard alone of what is
            named after it and has its shape. All else is read whole.
    """
    reader = _Reader(folder, vouched)
    state: dict[str, Any] = {}
    for name, entry in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata)
        dtype = entry.properties.dtype
        parameter = next((like[part] for part in _names(name) if part in like), None)
        if parameter is not None and parameter.shape == entry.size:
            state[name] = torch.empty_like(parameter, dtype=dtype, requires_grad=False)
        else:
            state[name] = torch.empty(entry.size, dtype=dtype)
    with warnings.catch_warnings():  # that there is one process is what was asked for
        warnings.filterwarnings("ignore", message=".*torch.distributed is disabled")
        load(state, storage_reader=reader, no_dist=True)
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        kind, _, rest = name.partition("/")
        tensors.setdefault(kind, {})[rest] = tensor
    return tensors


def _names(path: str) -> list[str]:
    """The parts of a tensor's path, one of which may be the name of its parameter."""
    return path.split("/")
