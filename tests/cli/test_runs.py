"""`strawberry runs`: what is listed, how runs compare, and what is not removed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from strawberry.cli.app import run
from strawberry.errors import StrawberryError
from strawberry.files.lock import FolderLock
from strawberry.runs import listing

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Write the files of a run in runs/NAME, as far as a list reads them."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, *losses: float, hour: int = 1, data: str = "abc", **train: Any) -> Path:
        folder = Path("runs", name)
        (folder / "checkpoints").mkdir(parents=True)
        recipe = {"name": "llama", "train": {"max_iters": 20, **train}}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        info = {"began": f"2026-01-01T0{hour}:00:00+00:00", "data": {"fingerprint": data}}
        (folder / "run.json").write_text(json.dumps(info))
        rows = [{"step": 10 * (n + 1), "val_loss": loss} for n, loss in enumerate(losses)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


def test_the_list(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest first, with loss and status; trials of an ablation are its own."""
    make_run("a", 3.0, 2.5)
    make_run("b", 2.75, hour=2)
    trial = make_run("sweep/trials/x", 1.0)
    (trial.parents[1] / "ablation.json").write_text("{}")

    assert run(["runs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["folder"], row["loss"], row["status"]) for row in rows] == [
        ("runs/b", 2.75, "stopped"),
        ("runs/a", 2.5, "finished"),
    ]
    assert run(["runs", "runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["runs/b", "llama", "2.7500", "10/20", "stopped"]
    assert lines[-1].startswith("2 runs, ")


def test_a_narrow_terminal(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns are left out before lines are broken."""
    make_run("a-rather-long-name-of-a-run", 3.0, 2.5)
    monkeypatch.setenv("COLUMNS", "60")
    assert run(["runs"]) == 0
    head, row, foot = capsys.readouterr().out.splitlines()
    assert "recipe" not in head
    assert "runs/a-rather-long-name-of-a-run" in row
    assert foot.startswith("1 run, ")


def test_compare(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Losses beside each other, and only the fields that differ; other data are warned of."""
    first, second = make_run("a", 3.0, batch_size=4), make_run("b", 2.5, batch_size=8, data="x")
    assert run(["runs", "compare", str(first), str(second)]) == 0
    said = capsys.readouterr()
    rows = {line.split("  ")[0]: line.split()[-2:] for line in said.out.splitlines()}
    assert rows["validation loss"] == ["3.0000", "2.5000"]
    assert rows["train.batch_size"] == ["4", "8"]
    assert "train.max_iters" not in rows
    assert "the losses can't be compared" in said.err
    assert run(["runs", "compare", str(first)]) == 2


def test_remove(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal it wants --yes; then the folders are gone, and nothing else."""
    first, second = make_run("a", 3.0), make_run("b", 2.5)
    assert run(["runs", "remove", str(first)]) == 2
    assert "--yes" in capsys.readouterr().err
    assert first.exists()
    assert run(["runs", "remove", str(first), str(first), "--yes"]) == 0
    assert [each.name for each in Path("runs").iterdir()] == [second.name]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "run.json").unlink(), "is not a run"),
        (lambda folder: (folder / "notes.txt").write_text(""), "contains notes.txt, which no run"),
        (
            lambda folder: (folder.parent / "ablation.json").write_text("{}"),
            "is a trial of the abl",
        ),
        (
            lambda folder: (folder / ".holder").write_text(
                f"process {os.getpid()} on {socket.gethostname()}"
            ),
            "is training here",
        ),
    ],
)
def test_what_is_not_removed(spoil: Callable[[Path], None], said: str, make_run: MakeRun) -> None:
    """One that can't be removed keeps all of them, and the reason is said."""
    good, bad = make_run("good", 3.0), make_run("bad/run", 3.0)
    spoil(bad)
    with pytest.raises(StrawberryError, match=said):
        listing.remove([good, bad])
    assert good.exists()
    assert bad.exists()


def test_a_lock_that_is_taken_in_between(make_run: MakeRun) -> None:
    """A run that a process has by now is not removed, though its folder did not show it."""
    first, second = make_run("a", 3.0), make_run("b", 3.0)
    lock = FolderLock(second, "is training here")
    lock.acquire()
    (second / ".holder").unlink()
    with pytest.raises(StrawberryError, match="another process is training here"):
        listing.remove([first, second])
    lock.release()
    assert first.exists()
    assert second.exists()


def test_nothing_is_half_removed(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can't be renamed brings back those before it; a killed run is not running."""
    first, second = make_run("a", 3.0), make_run("b", 3.0)
    (first / ".holder").write_text(f"process 999999999 on {socket.gethostname()}")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "b":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StrawberryError, match="can't remove: Permission denied"):
        listing.remove([first, second])
    assert sorted(each.name for each in Path("runs").iterdir()) == ["a", "b"]
    assert (first / "recipe.yaml").exists()
