import json
from pathlib import Path

import pytest

from strawberry.cli.app import run
from tests.cli.runs import *  # noqa: F403 (fixtures)


def test_prints_the_prompt_and_goes_on(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command prints the same text; without a cache it is the same too."""
    capsys.readouterr()
    outputs = []
    for extra in ([], [], ["--no-cache"]):
        command = ["generate", str(trained), "line 1", "--max-new-tokens", "12", *extra]
        assert run([*command, "--temperature", "0"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0].startswith("line 1")
    assert len(set(outputs)) == 1


def test_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text, the prompt and the step that the model is of."""
    capsys.readouterr()
    assert run(["generate", str(trained), "a", "--max-new-tokens", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["prompt"], result["step"]) == ("a", 8)
    assert isinstance(result["text"], str)


def test_a_folder_that_is_no_run_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the folder."""
    assert run(["generate", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
