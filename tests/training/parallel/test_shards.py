import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as dcp

from strawberry.errors import StrawberryError
from strawberry.runs import checkpoint


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def saved(folder: Path) -> Path:
    """A sealed checkpoint in shards, of one process."""
    generators = {"0/cpu": torch.get_rng_state()}
    temporary = checkpoint.begin(folder, checkpoint.CheckpointData({}, {}, generators, {"step": 5}))
    tensors = {
        "model/a.weight": torch.arange(6.0).view(2, 3),
        "optimizer/0/a.weight/m": torch.ones(2),
    }
    dcp.save(tensors, checkpoint_id=temporary / checkpoint.SHARDS, no_dist=True)
    return checkpoint.seal(temporary, checkpoint.CheckpointPolicy(2))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of having no ranks
def test_one_process_reads_it_whole(tmp_path: Path) -> None:
    """Tensors come back by their names, and every file has a hash."""
    path = saved(tmp_path)
    found = checkpoint.load(path)

    assert torch.equal(found.model["a.weight"], torch.arange(6.0).view(2, 3))
    assert torch.equal(found.optimizer["0/a.weight/m"], torch.ones(2))
    assert "shards/.metadata" in checkpoint.verify(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_flipped_bit_in_any_file_is_found(tmp_path: Path) -> None:
    """Shards and metadata alike; without the check, the first would be loaded."""
    path = saved(tmp_path)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        before = file.read_bytes()
        middle = len(before) // 2
        file.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        with pytest.raises(StrawberryError):
            checkpoint.load(path)
        file.write_bytes(before)
    checkpoint.load(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hostile_metadata_runs_nothing(tmp_path: Path) -> None:
    """Not even where the manifest vouches for it; the control: a plain pickle.load does run it."""
    path = saved(tmp_path)
    metadata = path / checkpoint.SHARDS / ".metadata"
    metadata.write_bytes(pickle.dumps(Payload(tmp_path / "canary")))
    with pytest.raises(StrawberryError, match="differs from what was written"):
        checkpoint.load(path)
    with pytest.raises(StrawberryError, match="mkdir, which no checkpoint needs"):
        checkpoint.read(path, checkpoint.verify(_resealed(path)))
    assert not (tmp_path / "canary").exists()

    pickle.loads(metadata.read_bytes())
    assert (tmp_path / "canary").exists()


def _resealed(path: Path) -> Path:
    """The checkpoint with a manifest of what is there now."""
    (path / checkpoint.MANIFEST).unlink()
    temporary = path.rename(path.with_name(f"{checkpoint.TEMPORARY}{path.name}"))
    return checkpoint.seal(temporary, checkpoint.CheckpointPolicy(2))
