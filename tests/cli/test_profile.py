import json
from collections.abc import Callable
from pathlib import Path

import pytest

from strawberry.cli.app import run
from tests.cli.runs import *  # noqa: F403 (fixtures)


@pytest.fixture(autouse=True)
def _small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's peak is not looked at here."""
    monkeypatch.setattr("strawberry.profiling.step.SIDE", 64)


def test_a_table_and_a_picture(
    recipe_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each part of the recipe has a line, the step's sum stands last; nothing else is written."""
    monkeypatch.setenv("COLUMNS", "160")
    picture = tmp_path / "step.png"
    command = ["profile", str(recipe_file()), "--steps", "1", "--out", str(picture)]
    assert run(command) == 0
    text = capsys.readouterr().out
    for word in ("stack[0].attention", "stack[0].ffn", "head and loss", "step", "GFLOP/s"):
        assert word in text
    assert picture.stat().st_size > 5000
    assert not Path("runs").exists()


def test_json(recipe_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The same as data; --set reaches it."""
    command = ["profile", str(recipe_file()), "--steps", "1", "--json"]
    assert run([*command, "--set", "train.batch_size=3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 48
    assert {"seconds", "peak_flops", "rows", "device"} <= set(found)
    assert run([*command[:2], "--steps", "0"]) == 2
