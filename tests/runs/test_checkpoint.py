import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from strawberry.errors import StrawberryError
from strawberry.runs import checkpoint
from strawberry.runs.checkpoint import CheckpointData, CheckpointPolicy


def write(folder: Path, step: int, keep: int = 10) -> Path:
    generator = torch.Generator().manual_seed(step)
    moment = CheckpointData(
        model={"w": torch.randn(4, 3, generator=generator)},
        optimizer={"0/w/exp_avg": torch.randn(4, 3, generator=generator)},
        random={"torch": torch.arange(8, dtype=torch.uint8)},
        state={"step": step},
    )
    return checkpoint.save(folder, moment, CheckpointPolicy(keep))


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_gives_back_what_was_saved(tmp_path: Path) -> None:
    """Tensors, dtypes and the state come back bit for bit."""
    written = write(tmp_path, 7)
    found, warnings = checkpoint.load_newest(tmp_path)
    assert (found.path, found.state["step"], warnings) == (written, 7, [])
    expected = torch.randn(4, 3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(found.model["w"], expected)
    assert found.random["torch"].dtype == torch.uint8


def test_takes_views_and_shared_storage(tmp_path: Path) -> None:
    """A transposed tensor, and two that share memory, are stored as they look."""
    base = torch.arange(12.0).view(3, 4)
    views = {"a": base.T, "b": base, "c": base[1:]}
    checkpoint.save(tmp_path, CheckpointData(views, {}, {}, {"step": 1}), CheckpointPolicy(1))
    found, _ = checkpoint.load_newest(tmp_path)
    assert torch.equal(found.model["a"], base.T)
    assert torch.equal(found.model["c"], base[1:])


def test_keeps_the_newest(tmp_path: Path) -> None:
    """Only the last N stay, by step and not by time."""
    for step in (5, 10, 100, 1000):
        write(tmp_path, step, keep=2)
    assert [int(name.split("-")[1]) for name in steps(tmp_path)] == [100, 1000]


@pytest.mark.faults(46)
def test_a_folder_may_go_away_as_soon_as_a_checkpoint_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is old can't be removed then; nothing is amiss, and all is there when it is back."""
    folder, away = tmp_path / "checkpoints", tmp_path / "elsewhere"
    write(folder, 1, keep=1)
    finish = checkpoint._finish

    def finish_and_go(*arguments: Any) -> None:
        finish(*arguments)
        folder.rename(away)

    monkeypatch.setattr(checkpoint, "_finish", finish_and_go)
    write(folder, 2, keep=1)
    away.rename(folder)
    assert checkpoint.load_newest(folder)[0].state["step"] == 2


@pytest.mark.faults(13)
def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    """A bit flipped in any 64-byte window of any file leads back to the checkpoint before."""
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    for file in sorted(newest.iterdir()):
        content = file.read_bytes()
        for offset in range(0, len(content), 64):
            damaged = bytearray(content)
            damaged[offset] ^= 1 << (offset // 64 % 8)
            file.write_bytes(damaged)
            found, warnings = checkpoint.load_newest(tmp_path)
            assert found.state["step"] == 1, (file.name, offset)
            assert len(warnings) == 1
            assert newest.name in warnings[0]
        file.write_bytes(content)
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 2


@pytest.mark.faults(13, control=True)
def test_without_hashes_a_flipped_bit_would_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with the check switched off, a flipped weight is loaded in silence."""
    newest = write(tmp_path, 2)
    file = newest / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    manifest = json.loads((newest / "manifest.json").read_text())
    monkeypatch.setattr(checkpoint, "digest", lambda path: manifest[path.name])
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 2


def _truncate(path: Path) -> None:
    file = path / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def _empty(path: Path) -> None:
    (path / "state.json").write_bytes(b"")


def _delete(path: Path) -> None:
    (path / "model.safetensors").unlink()


def _no_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def _manifest_of_nothing(path: Path) -> None:
    (path / "manifest.json").write_text("{}")


def _manifest_is_a_list(path: Path) -> None:
    (path / "manifest.json").write_text("[]")


def _swap(path: Path) -> None:
    one, two = path / "model.safetensors", path / "optimizer.safetensors"
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


@pytest.mark.faults(14)
@pytest.mark.parametrize(
    "harm",
    [_truncate, _empty, _delete, _no_manifest, _manifest_of_nothing, _manifest_is_a_list, _swap],
)
def test_harm_of_any_kind_is_found(tmp_path: Path, harm: Any) -> None:
    """A file that is cut, emptied, gone, exchanged, or not vouched for is noticed."""
    write(tmp_path, 1)
    harm(write(tmp_path, 2))
    found, warnings = checkpoint.load_newest(tmp_path)
    assert found.state["step"] == 1
    assert len(warnings) == 1


def test_says_so_when_none_is_whole(tmp_path: Path) -> None:
    """With every checkpoint damaged, or none there, the error says so instead of a traceback."""
    with pytest.raises(StrawberryError, match="checkpoint"):
        checkpoint.load_newest(tmp_path / "nothing")
    _delete(write(tmp_path, 1))
    with pytest.raises(StrawberryError, match="damaged"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.faults(15)
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses, at the first file or at the last, the old checkpoint stays alone."""
    write(tmp_path, 1)
    for failing in ("save_file", "flush", "digest"):
        with monkeypatch.context() as patch:

            def refuse(*args: Any, **kwargs: Any) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(checkpoint, failing, refuse)
            with pytest.raises(StrawberryError, match="No space left"):
                write(tmp_path, 2)
        assert [int(name.split("-")[1]) for name in steps(tmp_path)] == [1]
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 1


@pytest.mark.faults(15)
def test_a_full_disk_under_safetensors_is_a_plain_error(tmp_path: Path) -> None:
    """What safetensors raises when it can't write is no traceback either."""
    from safetensors import SafetensorError

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save_file", refuse)
        with pytest.raises(StrawberryError, match="No space left"):
            write(tmp_path, 2)
    assert steps(tmp_path) == []


def test_a_damaged_newer_one_does_not_push_out_whole_ones(tmp_path: Path) -> None:
    """After going on from before a damaged checkpoint, what is saved next is what is kept."""
    write(tmp_path, 10, keep=1)
    damaged = tmp_path / "step-00000030"
    shutil.copytree(tmp_path / "step-00000010", damaged)
    _delete(damaged)
    write(tmp_path, 20, keep=1)
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 20


@pytest.mark.faults(24)
def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """Half-written folders are never taken for checkpoints, and gone after the next start.

    Who only reads lets them be: they may belong to a run that goes on.
    """
    write(tmp_path, 1)
    orphan = tmp_path / f"{checkpoint.TEMPORARY}step-00000002"
    shutil.copytree(tmp_path / "step-00000001", orphan)
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 1
    assert orphan.exists()
    checkpoint.tidy(tmp_path)
    assert not orphan.exists()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    """A step that a resumed run reaches again is written anew."""
    write(tmp_path, 3)
    again = write(tmp_path, 3)
    assert steps(tmp_path) == [again.name]
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 3
