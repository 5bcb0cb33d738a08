"""Whose a trial's folder is, without a cluster."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from strawberry_ray.attempts import claim, release

from strawberry.ablate import TrialProcess, holds
from strawberry.recipe import load_recipe

REQUEST = {"key": "k", "name": "n"}


def leave(folder: Path, step: int, result: Mapping[str, Any] | None = None) -> None:
    """What an attempt leaves that came to this step."""
    (folder / f"run/checkpoints/step-{step:08d}").mkdir(parents=True)
    (folder / "run/.lock").touch()
    (folder / "trial.json").write_text(json.dumps(REQUEST))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))


@pytest.mark.faults(44)
def test_a_claim_leaves_earlier_writers_nowhere(tmp_path: Path) -> None:
    """The folder has a new name and a new request; of several, the furthest is kept."""
    folder = tmp_path / "trials" / "cell[1]-7"
    leave(folder, 5, {"status": "failed"})
    first = claim(folder, REQUEST, 1)
    assert not folder.exists()
    assert holds(first.folder, first.request)
    assert not (first.folder / "result.json").exists()
    leave(first.folder.with_name(f"{folder.name}.attempt-ghost"), 3)
    second = claim(folder, REQUEST, 2)
    assert not holds(first.folder, first.request)
    assert not holds(second.folder, first.request)
    assert (second.folder / "run/checkpoints/step-00000005").is_dir()
    assert not (second.folder / "run/.lock").exists()
    assert [path.name for path in folder.parent.iterdir()] == [second.folder.name]
    release(second, folder)
    assert json.loads((folder / "trial.json").read_text())["attempts"] == 2


@pytest.mark.parametrize(("status", "key", "known"), [
    ("finished", "k", True), ("finished", "other", False), ("stopped", "k", False),
])  # fmt: skip
def test_what_was_finished_is_known(tmp_path: Path, status: str, key: str, known: bool) -> None:
    """A node that was lost just after it had written the result has not to do it again."""
    leave(tmp_path / "a", 5, {"status": status})
    claimed = claim(tmp_path / "a", {**REQUEST, "key": key}, 1)
    assert (claimed.result is not None) == known
    assert (claimed.folder / "result.json").exists() == known


@pytest.mark.faults(44)
def test_a_late_writer_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    """A worker is stopped in its middle, its trial is given away and finished, then it wakes up.

    The second attempt goes on from the checkpoint; nothing of it changes when the first ends.
    """
    overrides = [
        "train.max_iters=4000",
        "train.lr_decay_iters=4000",
        "train.checkpoint_interval=20",
    ]
    recipe = load_recipe(recipe_file, overrides)
    folder = tmp_path / "trial"
    request = {"key": "k", "source": str(recipe_file), "plugin_files": [], "disabled": ["fla"],
               "recipe": recipe.to_yaml(), "threads": 1}  # fmt: skip
    first = claim(folder, request, 1)
    late = TrialProcess(first.folder, {}, timeout=600)
    try:
        until(lambda: any(first.folder.glob("run/checkpoints/step-*")))
        os.kill(late._process.pid, signal.SIGSTOP)
        shorter = {
            **request,
            "recipe": request["recipe"].replace("max_iters: 4000", "max_iters: 200"),
        }
        second = claim(folder, shorter, 2)
        begun = max(int(p.name[5:]) for p in second.folder.glob("run/checkpoints/step-*"))
        process = TrialProcess(second.folder, {}, timeout=600)
        until(lambda: process.poll() is not None)
        process.wait(0)
        release(second, folder)
        before = contents(folder)
        os.kill(late._process.pid, signal.SIGCONT)
        until(lambda: late.poll() is not None)
    finally:
        late.kill()
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("finished", 200)
    assert [row["step"] for row in rows(folder) if "lr" in row] == list(range(1, 201))
    assert begun >= 20
    assert contents(folder) == before
    assert not first.folder.exists()
    assert "the result is refused" in (folder / "log.txt").read_text()


def contents(folder: Path) -> dict[str, bytes]:
    """All files but what was printed."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"]
    return {str(path): path.read_bytes() for path in files}


def rows(folder: Path) -> list[dict[str, Any]]:
    """Those of the run's log."""
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def until(done: Any) -> None:
    """Wait for it, two minutes at most."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
