"""`strawberry check`: the report, its JSON form, its exit code."""

import json
from pathlib import Path

import pytest

from strawberry.cli.app import run

BROKEN = Path(__file__).parents[1] / "check" / "broken.py"
RECIPES = Path(__file__).parents[2] / "recipes"


def test_a_sound_component_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each check, a summary, exit code 0; the kind may be left out."""
    only = ["--only", "shape", "--only", "past", "--only", "recurrence"]
    assert run(["check", "mha", *only, "--set", "n_head=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["passed", "shape"],
        ["passed", "past"],
        ["skipped", "recurrence"],
    ]
    assert lines[3].startswith("attention/mha: 2 passed, 1 skipped in")


def test_a_broken_component_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and the finding in the JSON."""
    words = ["--plugin", str(BROKEN), "check", "ffn/Dead", "--only", "gradients", "--json"]
    assert run(words) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["subject"] == "ffn/Dead"
    assert not report["passed"]
    (outcome,) = report["checks"]
    assert outcome["verdict"] == "failed"
    assert "ffn.unused" in outcome["detail"]


def test_a_recipe_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Its model, with overrides."""
    words = ["check", str(RECIPES / "llama.yaml"), "--set", "model.n_embd=48"]
    assert run([*words, "--only", "cache"]) == 0
    assert "llama: 1 passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mhaa"], "unknown kind or component 'mhaa'; did you mean 'mha'?"),
        (["attention/mhaa"], "unknown attention 'mhaa'; did you mean 'mha'?"),
        (["mha", "--only", "futur"], "unknown check 'futur'; did you mean 'future'?"),
        (["mha", "--set", "n_head"], "a field is name=value"),
        (["mha", "--set", "n_haed=2"], "did you mean 'n_head'?"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, what is wrong and what would be right, and no traceback."""
    assert run(["check", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
