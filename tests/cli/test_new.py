"""`strawberry new`: what it prints, in words and as JSON, and how it refuses."""

import json
from pathlib import Path

import pytest

from strawberry.cli.app import run


def test_it_says_what_was_made_and_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder, and commands that name files which are there."""
    assert run(["new", "attention", "hyena", "--dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    made = tmp_path / "strawberry-hyena"
    assert lines[0].startswith(f"{made}: a plugin with attention 'hyena'")
    assert [line.split()[:2] for line in lines[2:]] == [
        ["pip", "install"], ["strawberry", "build"], ["strawberry", "check"], ["pytest", str(made)],
    ]  # fmt: skip
    assert Path(lines[3].split()[2]).is_file()


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder alone, for programs."""
    assert run(["new", "tracker", "watch", "--dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "strawberry-watch")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["atention", "hyena"], "did you mean 'attention'?"),
        (["attention", "mha"], "choose another name"),
        (["attention"], "missing argument 'NAME'"),
    ],
)
def test_mistakes(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line, no traceback, nothing made."""
    assert run(["new", *words, "--dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
