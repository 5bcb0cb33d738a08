"""Reading checkpoints in shards, which `shard_writer` writes in torch's distributed format (DCP).

One can be read by any number of ranks, each its own part, or whole by one process.

DCP's `.metadata` is a pickle. It is read only if it matches the checkpoint's manifest, and by an
unpickler that allows only the few classes it consists of.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from strawberry.errors import DamagedCheckpointError

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
"""Classes that a `.metadata` may name, apart from torch's dtypes; constructing them has no side
effects.
"""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "pathlib":  # where it was written: a name, no more
            return PurePosixPath if name == "PosixPath" else PureWindowsPath
        kind = getattr(torch, name, None) if module == "torch" else None
        if (module, name) in KNOWN or isinstance(kind, torch.dtype):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint needs")


class _Reader(FileSystemReader):
    """Reads the files of a checkpoint that its manifest lists, and no others."""

    def __init__(self, folder: Path, vouched: frozenset[str]) -> None:
        super().__init__(folder)
        self.folder = folder
        self.vouched = vouched

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The metadata, without running any code that it names; raises DamagedCheckpointError."""
        if f"{self.folder.name}/.metadata" not in self.vouched:
            raise DamagedCheckpointError(f"{self.folder}: its manifest lists no .metadata")
        try:
            metadata = _Unpickler(io.BytesIO((self.folder / ".metadata").read_bytes())).load()
            files = {
                f"{self.folder.name}/{info.relative_path}"
                for info in metadata.storage_data.values()
            }
            kinds = {type(entry) for entry in metadata.state_dict_metadata.values()}
        except (pickle.UnpicklingError, AttributeError, EOFError, OSError) as error:
            raise DamagedCheckpointError(f"{self.folder}: {error}") from error
        if not self.vouched.issuperset(files) or kinds - {TensorStorageMetadata}:
            raise DamagedCheckpointError(f"{self.folder}: was not written by Strawberry")
        described: Metadata = metadata
        if described.storage_meta is None:
            described.storage_meta = StorageMeta()
        described.storage_meta.load_id = self.load_id
        return described


def read(
    folder: Path, vouched: frozenset[str], like: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """The tensors below `folder`, by the parts of their names around the first slash.

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
