"""`strawberry recipes`: the list, and a recipe to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strawberry.cli.app import run
from strawberry.recipe import load_recipe
from tests.support import PLUGINS


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a line of what it is and whose; as JSON with its file."""
    assert run(["recipes"]) == 0
    assert "The llama recipe" in capsys.readouterr().out
    assert run(["recipes", "--json"]) == 0
    (row,) = (
        each for each in json.loads(capsys.readouterr().out) if each["name"] == "gpu/speedrun"
    )
    assert row["plugin"] == "strawberry"
    assert Path(row["file"]).is_file()


def test_a_printed_recipe_works_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it extends by a relative path is named instead."""
    assert run(["recipes", "gpu/llama_7b"]) == 0
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(capsys.readouterr().out)

    assert load_recipe("mine.yaml", plugins=PLUGINS) == load_recipe("gpu/llama_7b", plugins=PLUGINS)


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    """It is an error with the nearest name."""
    assert run(["recipes", "lama"]) == 2
    assert "did you mean" in capsys.readouterr().err
