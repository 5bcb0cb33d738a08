import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strawberry.cli.app import run
from strawberry.components.data.text import TextFiles
from strawberry.training.optimizers import Optimizers
from tests.cli.runs import *  # noqa: F403 (fixtures)

RecipeFile = Callable[..., Path]


def test_shows_steps_a_sample_and_what_to_do_next(
    recipe_file: RecipeFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into a pipe: plain lines, the evaluation, a sample, and commands that work."""
    assert run(["train", str(recipe_file())]) == 0
    out = capsys.readouterr().out
    assert "step 8/8  loss" in out
    assert "validation loss" in out
    assert "tokens/s  ETA" in out
    assert "sample (noise, as expected: after 8 steps the loss is " in out
    assert "strawberry generate runs/tiny" in out
    assert "strawberry plot runs/tiny" in out
    before, _, rest = out.partition("\nsample")  # a sample may have any byte
    assert "\x1b" not in before + rest.partition("run folder:")[2]


def test_a_sample_goes_on_from_what_the_data_begin_with(
    recipe_file: RecipeFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt of the data source is printed before the sample, and is in the next command."""
    monkeypatch.setattr(TextFiles, "prompt", "line 1")
    monkeypatch.setattr("strawberry.cli.train.LEARNED", 9.0)  # as if it were enough
    assert run(["train", str(recipe_file())]) == 0
    out = capsys.readouterr().out
    assert "\nsample:\nline 1" in out
    assert "strawberry generate runs/tiny 'line 1'\n" in out


def test_json_is_the_result_alone(
    recipe_file: RecipeFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output is JSON; the display goes to standard error."""
    assert run(["train", str(recipe_file()), "--json", "--set", "train.max_iters=3"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["steps"] == 3
    assert result["val_loss"] > 0
    assert "step 3/3" in captured.err


def test_a_stop_names_the_command_to_go_on_and_it_works(
    recipe_file: RecipeFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command has the overrides too, so that the run is the same; it goes to the end."""
    original = Optimizers.step

    def step(self: Any, number: int) -> float:
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, number)

    folder = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(Optimizers, "step", step)
        arguments = ["train", str(recipe_file()), "--run-dir", str(folder)]
        assert run([*arguments, "--set", "train.max_iters=5"]) == 130
    errors = capsys.readouterr().err
    assert "stopped after step 3, saved" in errors
    import shlex

    command = shlex.split(errors.splitlines()[-1])
    assert command[:2] == ["strawberry", "train"]
    assert run(command[1:]) == 0
    assert "step 5/5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--run-dir"),
        (["--run-dir", "nowhere", "--resume"], "no run to resume"),
        (["--set", "train.device=tpu"], "train.device"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    recipe_file: RecipeFile,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """What can't be done is said at once, and no run folder is left."""
    assert run(["train", str(recipe_file()), *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not list(Path().iterdir())


def test_advice_has_what_was_given(
    recipe_file: RecipeFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that is advised can be pasted: quoted, with overrides and global options."""
    folder = tmp_path / "a run"
    command = ["train", str(recipe_file()), "--run-dir", str(folder), "--no-plugin", "wandb"]
    assert run([*command, "--set", "train.max_iters=2"]) == 0
    said = capsys.readouterr().out
    assert f"strawberry generate '{folder}'\n" in said  # no Python prompt after other text
    assert f"strawberry plot '{folder}'\n" in said
    more = ["--set", "train.max_iters=2", "--set", "optimizer={use: adamw, weight_decay: 0.3}"]
    assert run([*command, "--resume", *more]) == 2
    said = capsys.readouterr().err
    assert "optimizer.weight_decay: 0.1 -> 0.3" in said
    advised = shlex.split(said.rpartition("start another run: strawberry ")[2])
    assert advised == ["train", command[1], "--fork", str(folder), "--no-plugin", "wandb", *more]
