from pathlib import Path

import pytest

from strawberry.errors import StrawberryError
from strawberry.runs.plot import labels, plot
from strawberry.training import train
from tests.training.conftest import RecipeMaker

PNG = b"\x89PNG\r\n\x1a\n"


def test_draws_one_or_more_runs(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A picture of several runs, one of them without an evaluation in its middle."""
    pytest.importorskip("matplotlib")
    folders = [
        train(make_recipe(train={"max_iters": 4, "eval_interval": k}), tmp_path / f"run-{k}").folder
        for k in (0, 2)
    ]
    path = plot(folders, tmp_path / "curves.png")
    assert path.read_bytes().startswith(PNG)
    assert path.stat().st_size > 5_000


def test_labels_tell_folders_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest end of a path that no other folder has; `.` has the name of its folder."""
    monkeypatch.chdir(tmp_path)
    assert labels(["a/run", "b/run", "c"]) == ["a/run", "b/run", "c"]
    assert labels(["run", "a/run"])[1] == "a/run"
    assert labels(["."]) == [tmp_path.name]
    assert labels(["a", "a"]) == ["a", "a"]


def test_what_can_not_be_drawn_is_refused(tmp_path: Path) -> None:
    """A folder without metrics, and an ending that names no format, are one line each."""
    pytest.importorskip("matplotlib")
    with pytest.raises(StrawberryError, match=r"metrics\.jsonl"):
        plot([tmp_path], tmp_path / "curves.png")
    with pytest.raises(StrawberryError, match="no such folder"):
        plot([tmp_path / "absent"], tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "lr": 0.1}\n')
    with pytest.raises(StrawberryError, match="can't write"):
        plot([tmp_path], tmp_path / "curves.docx")
