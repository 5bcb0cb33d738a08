"""Section B: what disks do, and what other processes do to a run's folder."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from strawberry.cli.app import run as command
from strawberry.errors import DamagedCheckpointError, StrawberryError
from strawberry.files import retry
from strawberry.runs import checkpoint
from strawberry.runs.folder import RunFolder
from strawberry.training import space, train
from tests.faults.conftest import Calls, Figure, raising
from tests.runs.test_checkpoint import steps, write
from tests.training.conftest import RecipeMaker
from tests.training.test_loop import rows, same_weights

ROOT = Path(__file__).parents[2]


@pytest.mark.faults(14)
def test_a_checkpoint_cut_anywhere_is_found(tmp_path: Path, figure: Figure) -> None:
    """Each file cut at every 64 bytes, or gone: the one before is taken, and that is said."""
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    tried = found = 0
    for file in sorted(newest.iterdir()):
        content = file.read_bytes()
        for size in [*range(0, len(content), 64), -1]:
            if size < 0:
                file.unlink()
            else:
                file.write_bytes(content[:size])
            tried += 1
            taken, said = checkpoint.load_newest(tmp_path)
            found += taken.state["step"] == 1 and newest.name in said[0]
        file.write_bytes(content)
    figure(tried, found, "detected")


@pytest.mark.faults(14)
def test_a_stray_file_does_no_harm(tmp_path: Path) -> None:
    """What is not in the manifest is not read."""
    (write(tmp_path, 1) / "optimizer.pt").write_bytes(b"\x80\x04.")
    assert checkpoint.load_newest(tmp_path)[1] == []


@pytest.mark.faults(14, control=True)
def test_without_hashes_two_exchanged_files_would_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check off, weights and moments that changed places are loaded in silence."""
    path = write(tmp_path, 2)
    manifest = json.loads((path / "manifest.json").read_text())
    one, two = path / "model.safetensors", path / "optimizer.safetensors"
    one.rename(path / "x")
    two.rename(one)
    (path / "x").rename(two)
    assert checkpoint.load_newest is not None
    with pytest.raises(StrawberryError, match="damaged"):
        checkpoint.load_newest(tmp_path)
    monkeypatch.setattr(checkpoint, "digest", lambda file: manifest[file.name])
    assert "w" not in checkpoint.load_newest(tmp_path)[0].model


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within it no file can grow beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.faults(15)
def test_a_disk_that_fills_up_within_a_save(tmp_path: Path, figure: Figure) -> None:
    """Wherever there is no room for more, the old checkpoint stays, and that alone."""
    write(tmp_path, 1)
    tried = kept = 0
    for size in (0, 1, 100, 200, 400):
        with largest_file(size), pytest.raises(StrawberryError, match="can't write"):
            write(tmp_path, 2)
        tried += 1
        kept += steps(tmp_path) == ["step-00000001"]
        assert checkpoint.load_newest(tmp_path)[0].state["step"] == 1
    write(tmp_path, 2)
    figure(tried, kept, "full disks, last good kept", lost=0)


@pytest.mark.faults(15)
def test_a_full_disk_under_the_log_stops_the_run(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """One line that names the file and the reason; the last checkpoint is whole."""
    recipe = make_recipe(train={"max_iters": 4, "checkpoint_interval": 1})
    train(make_recipe(train={"max_iters": 2, "lr_decay_iters": 4}), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    original = RunFolder.log

    def full(self: RunFolder, row: Any) -> None:
        self.metrics_file = Path("/dev/full")
        original(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "log", full)
        with pytest.raises(StrawberryError, match="No space left on device"):
            train(recipe, tmp_path / "run", resume=True)
    assert checkpoint.load_newest(run.checkpoints)[0].state["step"] == 2


@pytest.mark.slow
@pytest.mark.faults(15)
def test_a_real_small_disk(recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    """On a file system of 700 KiB the run stops with a line, and goes on where there is room."""
    probe = ["unshare", "-rm", "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("this system gives no file system of one's own")
    recipe = recipe_file(train={"max_iters": 12, "checkpoint_interval": 1, "keep_checkpoints": 9})
    script = (
        "mount -t tmpfs -o size=700k none disk && "
        f"{sys.executable} -c 'import strawberry.training.loop as l; "
        "l.check_disk = lambda *a: None; "
        f"from strawberry.cli import main; main()' train {recipe} --run-dir disk/run; "
        "code=$?; cp -r disk/run saved; exit $code"
    )
    (tmp_path / "disk").mkdir()
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=tmp_path,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    saved = checkpoint.load_newest(tmp_path / "saved" / "checkpoints")[0].state["step"]
    assert 0 < saved < 12
    assert command(["train", str(recipe), "--run-dir", str(tmp_path / "saved"), "--resume"]) == 0


@pytest.mark.faults(16)
def test_room_is_asked_for_before_the_first_step(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too little of it, the bytes that are needed are named, and no run is left behind."""
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: usage)
    recipe = make_recipe(train={"checkpoint_interval": 1, "keep_checkpoints": 3})
    with pytest.raises(
        StrawberryError, match=r"4 checkpoints of .* KiB need .* 9\.77 KiB are free"
    ):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    usage.free = 10_000_000
    train(make_recipe(train={"max_iters": 1}), tmp_path / "run")


@pytest.mark.faults(16)
def test_what_is_asked_for_is_what_is_written(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The estimate of a checkpoint is the size of its tensors, up to headers."""
    from strawberry.model.build import build
    from strawberry.training.optimizers import assign, state_bytes

    recipe = make_recipe(optimizer={"use": "muon"}, train={"max_iters": 1})
    train(recipe, tmp_path / "run")
    path = checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].path
    model = build(recipe, "meta")
    names = ("model.safetensors", "optimizer.safetensors")
    written = sum((path / name).stat().st_size for name in names)
    asked = space._bytes_of(model) + state_bytes(assign(recipe, model.parameter_infos()))
    assert asked <= written < 1.1 * asked + 8000


@pytest.mark.faults(16, control=True)
def test_unasked_the_run_would_start(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check the same disk lets the run begin."""
    from strawberry.training import loop

    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: type("U", (), {"free": 1}))
    monkeypatch.setattr(loop, "check_disk", lambda *arguments: None)
    train(make_recipe(train={"max_iters": 1}), tmp_path / "run")


@pytest.mark.faults(17)
def test_a_folder_that_is_not_ours_to_write(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """One line before any training; as another user where we are root, whom no mode stops."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    recipe = make_recipe()
    root = os.geteuid() == 0
    places = [*reversed(tmp_path.parents), tmp_path]
    modes = {place: place.stat().st_mode for place in places if root and place.owner() == "root"}
    for place, mode in modes.items():
        if not mode & 0o001:
            place.chmod(mode | 0o011)
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(StrawberryError, match="can't write: Permission denied"):
            train(recipe, folder / "run")
    finally:
        if root:
            os.seteuid(0)
        for place, mode in modes.items():
            if not mode & 0o001:
                place.chmod(mode)
    assert list(folder.iterdir()) == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries."""
    monkeypatch.setattr(retry, "PAUSES", [0.0, 0.0, 0.0])


@pytest.mark.faults(18)
@pytest.mark.parametrize("number", [errno.EIO, errno.EINTR])
def test_an_error_that_passes_is_waited_for(
    tmp_path: Path, impatient: None, number: int, figure: Figure
) -> None:
    """Once, at any call of a save: it is written after all, and nothing else is left."""
    at = saved = 0
    while True:
        folder = tmp_path / str(at)
        write(folder, 1, keep=1)
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, at, raising(OSError(number, os.strerror(number))))
            write(folder, 2, keep=1)
        if not calls.reached:
            break
        at += 1
        saved += checkpoint.load_newest(folder)[0].state["step"] == 2
    figure(at, saved, f"calls with {errno.errorcode[number]} once")


@pytest.mark.faults(18)
def test_an_error_that_stays_keeps_the_last_good(tmp_path: Path, impatient: None) -> None:
    """After a few tries it is told, and the checkpoint before is there."""
    write(tmp_path, 1)
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, 3, raising(OSError(errno.EIO, "Input/output error")), times=10_000)
        with pytest.raises(StrawberryError, match="Input/output error"):
            write(tmp_path, 2)
    assert checkpoint.load_newest(tmp_path)[0].state["step"] == 1


@pytest.mark.faults(18)
def test_a_log_row_is_tried_again(tmp_path: Path, impatient: None) -> None:
    """So are the small files of a run."""
    run = RunFolder(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, 0, raising(OSError(errno.EIO, "Input/output error")))
        run.log({"step": 1})
    assert run.metrics() == [{"step": 1}]


@pytest.mark.faults(18)
def test_what_would_not_pass_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told at once; what safetensors says of the system is understood."""
    from safetensors import SafetensorError

    tries: list[int] = []

    def full() -> None:
        tries.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        retry.retried(full)
    assert len(tries) == 1
    assert retry.number(SafetensorError("I/O error: oh (os error 5)")) == errno.EIO
    assert retry.number(SafetensorError("a header")) is None


@pytest.mark.faults(18, control=True)
def test_without_another_try_it_would_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no tries left, one error is enough to end a run."""
    monkeypatch.setattr(retry, "PAUSES", [])
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, 5, raising(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(StrawberryError, match="Input/output error"):
            write(tmp_path, 1)


@pytest.mark.faults(19)
def test_an_old_checkpoint_that_stays_is_said(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on, and warns each time."""
    original = shutil.rmtree

    def refuse(path: Path, ignore_errors: bool = False, **options: Any) -> None:
        if Path(path).name.startswith("step-"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        original(path, ignore_errors, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", refuse)
    said: list[str] = []
    settings = {"max_iters": 3, "checkpoint_interval": 1, "keep_checkpoints": 1}
    train(make_recipe(train=settings), tmp_path / "run", warn=said.append)
    said = [line for line in said if "old checkpoint" in line]
    assert len(said) == 3  # the first at step 2, both at step 3
    assert "step-00000001: can't remove the old checkpoint" in said[0]
    assert len(steps(tmp_path / "run" / "checkpoints")) == 3


@pytest.mark.faults(22)
@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "..", ".", "a/b", "a\\b", "", "a\0b", "\n", "x" * 300]
)
def test_no_name_leads_out_of_the_runs_folder(
    recipe_file: Callable[..., Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe's name is a name: a path is refused at its line, and nothing is written."""
    path = recipe_file()
    path.write_text(path.read_text().replace("name: tiny", f"name: {json.dumps(name)}"))
    before = sorted(Path().iterdir())
    assert command(["train", str(path)]) == 2
    assert f"{path}:" in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before


@pytest.mark.faults(22)
def test_a_manifest_names_no_files_of_its_own(tmp_path: Path) -> None:
    """A path in it is not followed: the files that are read are ours, by name."""
    path = write(tmp_path / "run", 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (tmp_path / "secret").write_bytes(b"x")
    manifest["../../secret"] = checkpoint.digest(tmp_path / "secret")
    del manifest["model.safetensors"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedCheckpointError, match="model"):
        checkpoint.load(path)


@pytest.mark.faults(23)
def test_a_clock_that_jumps_changes_nothing(
    make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day back, then two on, between checkpoints: the newest is by step, speeds are positive."""
    settings = {"max_iters": 6, "checkpoint_interval": 2}
    recipe = make_recipe(train=settings)
    train(recipe, tmp_path / "whole")
    now, jumps = time.time, iter([0, -86_400, 86_400] * 10_000)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + next(jumps))
        train(recipe, tmp_path / "run")
    for at, path in enumerate(sorted((tmp_path / "run" / "checkpoints").iterdir())):
        os.utime(path, (1e9 - at, 1e9 - at))
    assert checkpoint.load_newest(tmp_path / "run" / "checkpoints")[0].state["step"] == 6
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert same_weights(tmp_path / "run", tmp_path / "whole")
    speeds = [
        row["tokens_per_second"] for row in RunFolder(tmp_path / "run").metrics() if "loss" in row
    ]
    assert all(speed > 0 for speed in speeds)


@pytest.mark.faults(23)
def test_no_wall_clock_decides_anything() -> None:
    """Nowhere in training is `time.time` called, nor a checkpoint's file time looked at."""
    for path in (ROOT / "strawberry" / "train").glob("*.py"):
        assert not re.search(r"time\.time\(|st_mtime|st_ctime", path.read_text()), path.name


@pytest.mark.faults(20, control=True)
def test_without_the_lock_two_would_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lock that always opens, a second process would not be refused."""
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.hold()
    with pytest.raises(StrawberryError, match=str(os.getpid())):
        second.hold()
    monkeypatch.setattr(second._lock, "acquire", lambda: None)
    second.hold()
    first.release()


WRITER = """
import json, os, random, signal, sys, time
from pathlib import Path
from strawberry.runs.folder import RunFolder, write_atomic

def write(folder, acknowledge):
    run = RunFolder(folder)
    for number in range(10**6):
        text = json.dumps({"number": number, "filler": "x" * (number * 97 % 5000)})
        write_atomic(folder / "result.json", text)
        run.log({"step": number})
        os.write(acknowledge, b"%d " % number)

chance, kept = random.Random(25), 0
for turn in range(200):
    folder = Path(sys.argv[1], str(turn))
    folder.mkdir()
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        write(folder, tell)
    os.close(tell)
    os.read(told, 1)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(told) as file:
        acknowledged = int(("0" + file.read()).rsplit(" ", 1)[0].split()[-1])
    result = json.loads((folder / "result.json").read_text())
    steps = [row["step"] for row in RunFolder(folder).metrics()][: acknowledged + 1]
    kept += result["number"] >= acknowledged and steps == list(range(acknowledged + 1))
print(kept)
"""


@pytest.mark.slow
@pytest.mark.faults(25)
def test_two_hundred_kills_of_who_writes_results(tmp_path: Path, figure: Figure) -> None:
    """A result that was acknowledged is there, whole, as is every row of the log before it."""
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)],
                          capture_output=True, text=True, check=True)  # fmt: skip
    figure(200, int(done.stdout), "kills, no acknowledged result lost")
