"""`strawberry hf`: what it prints, and its mistakes in one line."""

import json
from pathlib import Path

import pytest
from hf_runs import MakeRun

from strawberry.commands import run as strawberry_cli


def test_export_and_import(
    make_run: MakeRun, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both say what they made, as text or as JSON, and what can be done with it."""
    out, again = tmp_path / "out", tmp_path / "again"
    run = make_run("gpt2")
    assert strawberry_cli(["hf", "export", str(run), str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "path": str(out), "model_type": "gpt2", "step": 0, "parameters": 37064, "tokenizer": True,
    }  # fmt: skip
    assert strawberry_cli(["hf", "import", str(out), str(again), "--set", text]) == 0
    assert "\nname: out\n" in f"\n{(again / 'recipe.yaml').read_text()}"
    assert f"strawberry train {again} --run-dir {again} --resume" in capsys.readouterr().out
    assert strawberry_cli(["generate", str(again), "a", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith("a")
    arguments = ["hf", "import", str(out), str(tmp_path / "third"), "--set", text, "--json"]
    assert strawberry_cli(arguments) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 37064


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is no run, or no checkpoint, ends with code 2 and a line."""
    assert strawberry_cli(["hf", "export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert strawberry_cli(["hf", "import", str(tmp_path), str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "config.json: No such file" in err
    assert [*tmp_path.iterdir()] == []
