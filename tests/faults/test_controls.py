"""With a detector off, its proof would fail: the controls that don't stand beside their proofs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
import yaml

from strawberry.data import tokenfile
from strawberry.errors import StrawberryError
from strawberry.files.storage import DamagedFileError, FileFingerprints
from strawberry.model.build import build
from strawberry.runs import checkpoint
from strawberry.runs.folder import RunFolder, new_run_folder
from strawberry.training import train
from tests.cli.conftest import site
from tests.faults.conftest import Calls, raising
from tests.faults.test_storage import WRITER, largest_file
from tests.plugin.fakes import FakeSite
from tests.runs.test_checkpoint import write
from tests.training.conftest import RecipeMaker

__all__ = ["site"]


@pytest.mark.faults(10, 11, control=True)
def test_uncompared_another_recipe_and_corpus_would_go_on(
    make_recipe: RecipeMaker, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no comparison a run goes on with other text and another rate, and nothing is said."""
    train(make_recipe(train={"max_iters": 2}), tmp_path / "run")
    (corpus / "03.txt").write_text("other words " * 200)
    changed = make_recipe(train={"max_iters": 3, "learning_rate": 0.1})
    monkeypatch.setattr(RunFolder, "changes", lambda *arguments: [])
    assert train(changed, tmp_path / "run", resume=True).steps == 3


@pytest.mark.faults(12, control=True)
def test_a_reader_of_that_format_would_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused for its number alone is accepted where the number is ours."""
    ours = checkpoint.FORMAT
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    write(tmp_path, 1)
    assert checkpoint.load_newest(tmp_path)[0].state["format"] == 99
    monkeypatch.setattr(checkpoint, "FORMAT", ours)
    with pytest.raises(StrawberryError, match="has format 99"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.faults(15, control=True)
def test_in_place_a_full_disk_would_cost_the_old_one(tmp_path: Path) -> None:
    """Written over the old files, the only checkpoint is lost when there is no more room."""
    only = write(tmp_path / "run", 1)
    other = write(tmp_path / "apart", 2)
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        shutil.copytree(other, only, dirs_exist_ok=True)
    with pytest.raises(StrawberryError, match="damaged"):
        checkpoint.load_newest(tmp_path / "run")


@pytest.mark.faults(17, control=True)
def test_where_it_may_write_it_does(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The folder that is refused to another user takes a run of its owner's."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    train(make_recipe(train={"max_iters": 1}), folder / "run")


@pytest.mark.faults(19, control=True)
def test_an_old_checkpoint_that_stays_would_end_the_run(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A removal that is not guarded takes the run with it."""
    monkeypatch.setattr(checkpoint, "_remove", lambda path, warn: Path("/nowhere").rmdir())
    settings = {"max_iters": 3, "checkpoint_interval": 1, "keep_checkpoints": 1}
    with pytest.raises(FileNotFoundError):
        train(make_recipe(train=settings), tmp_path / "run")


@pytest.mark.faults(21, control=True)
def test_a_lock_that_is_a_file_would_outlive_its_holder(tmp_path: Path) -> None:
    """What a killed holder leaves stands in the way of a lock by existence, and not of ours."""
    (tmp_path / ".lock").touch()
    with pytest.raises(FileExistsError):
        (tmp_path / ".lock").open("x")
    run = RunFolder(tmp_path)
    run.hold()
    run.release()
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(StrawberryError, match="training"):
        RunFolder(tmp_path).hold()


@pytest.mark.faults(22, control=True)
def test_unchecked_a_name_would_lead_out() -> None:
    """The folder of a name that the recipe's reader refuses is not under `runs`."""
    runs = Path("runs").absolute()
    assert not Path(os.path.normpath(new_run_folder("../out").absolute())).is_relative_to(runs)


@pytest.mark.faults(23, control=True)
def test_by_file_times_another_one_is_the_newest(tmp_path: Path) -> None:
    """After a clock has jumped back, the last one written looks older than the first."""
    paths = [write(tmp_path, step) for step in (1, 2, 3)]
    for number, path in enumerate(paths):
        os.utime(path, (1e9 - number, 1e9 - number))
    assert max(paths, key=lambda path: path.stat().st_mtime).name == "step-00000001"
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 3


@pytest.mark.faults(24, control=True)
def test_untidied_what_a_kill_leaves_would_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no tidying, a failed write leaves its folder behind for ever."""
    monkeypatch.setattr(checkpoint, "tidy", lambda folder: None)
    write(tmp_path, 1)
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, 8, raising(OSError(28, "No space left on device")))
        with pytest.raises(StrawberryError):
            write(tmp_path, 2)
    checkpoint.load_newest(tmp_path)
    assert list(tmp_path.glob(f"{checkpoint.TEMPORARY}*"))


@pytest.mark.slow
@pytest.mark.faults(25, control=True)
def test_results_written_in_place_would_be_cut(tmp_path: Path) -> None:
    """The same kills cost results that are written over the old ones."""
    script = WRITER.replace(
        'write_atomic(folder / "result.json", text)', '(folder / "result.json").write_text(text)'
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode != 0 or int(done.stdout) < 200


@pytest.mark.faults(28, control=True)
def test_unchecked_an_id_out_of_range_is_a_crash(make_recipe: RecipeMaker) -> None:
    """The model itself fails on it, with an error that names neither data nor batch."""
    model = build(make_recipe())
    with pytest.raises(IndexError, match="index out of range"):
        model(torch.tensor([[1, 300]]))


@pytest.mark.faults(29, control=True)
def test_unverified_a_flipped_bit_would_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check of the ids off, a token file gives another token and says nothing."""
    path = tmp_path / "t.tok"
    with tokenfile.TokenWriter(path, 300) as writer:
        writer.append(np.arange(200), 0)
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError):
        tokenfile.open_tokens(path, FileFingerprints(tmp_path / "cache"))
    monkeypatch.setattr(tokenfile, "_verify", lambda file: None)
    assert tokenfile.open_tokens(path, FileFingerprints(tmp_path / "cache")).ids[198] != 198


@pytest.mark.faults(35, control=True)
def test_a_plain_reader_would_mistake_them() -> None:
    """YAML 1.1, as PyYAML reads it, makes other values of these words."""
    read = yaml.safe_load("{a: no, b: 012, c: 1:30, d: 1e-4}")
    assert read == {"a": False, "b": 10, "c": 90, "d": "1e-4"}


@pytest.mark.faults(38, control=True)
def test_a_plain_loader_would_stop_at_the_first(site: FakeSite) -> None:
    """The way that pluggy itself loads entry points lets one broken plugin end the program."""
    import pluggy

    site.install("bad", "raise SystemExit(3)")
    with pytest.raises(SystemExit):
        pluggy.PluginManager("strawberry").load_setuptools_entrypoints("strawberry")


@pytest.mark.faults(39, control=True)
def test_unguarded_a_tracker_would_be_a_traceback(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called as it is, a tracker that raises ends the run with an error that names nobody."""
    from strawberry.training import loop
    from tests.training.test_loop import Recorder

    class Broken(Recorder):
        def step_done(self, run: Path, step: int, metrics: Any) -> None:
            raise KeyError("dashboard")

    def tell(self: Any, event: str, *arguments: Any) -> None:
        for tracker in self.trackers:
            getattr(tracker, event)(*arguments)

    monkeypatch.setattr(loop.Session, "tell", tell)
    with pytest.raises(KeyError, match="dashboard"):
        train(make_recipe(), tmp_path / "run", trackers=[Broken()])


@pytest.mark.faults(3, 24)
def test_a_checkpoint_that_was_moved_away_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames of a step that is saved again, the old one is there."""
    path = write(tmp_path, 1)
    path.rename(tmp_path / f"{checkpoint.TEMPORARY}{path.name}{checkpoint.OLD}")
    shutil.copytree(write(tmp_path.with_name("apart"), 2),
                    tmp_path / f"{checkpoint.TEMPORARY}{path.name}")  # fmt: skip
    checkpoint.tidy(tmp_path)
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.faults(14, control=True)
def test_a_manifest_that_is_believed_without_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hashes that are not computed, a state that was cut is found by chance alone."""
    path = write(tmp_path, 1)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "step": 7}))
    with contextlib.suppress(StrawberryError):
        pytest.fail(str(checkpoint.load_newest(tmp_path)))
    manifest = json.loads((path / "manifest.json").read_text())
    monkeypatch.setattr(checkpoint, "digest", lambda file: manifest[file.name])
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 7
