import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from strawberry.cli.app import run
from strawberry.cli.generate import command
from strawberry.generation import generate
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


def test_the_command_samples_as_python_does() -> None:
    """Their defaults are written twice, for the command's help is printed without torch."""
    options, arguments = (inspect.signature(each).parameters for each in (command, generate))
    for name in ("temperature", "top_k", "top_p", "no_repeat"):
        assert options[name].default == arguments[name].default


def test_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text, the prompt and the step that the model is of."""
    capsys.readouterr()
    assert run(["generate", str(trained), "a", "--max-new-tokens", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["prompt"], result["step"]) == ("a", 8)
    assert isinstance(result["text"], str)


def test_several_prompts_and_samples(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Texts come one under the other, in order; JSON has them as a list."""
    capsys.readouterr()
    command = ["generate", str(trained), "line 1", "mat", "--samples", "2", "--max-new-tokens", "3"]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["continuations"]
    assert [row["prompt"] for row in rows] == ["line 1", "line 1", "mat", "mat"]
    assert text == "\n\n".join(row["prompt"] + row["text"] for row in rows) + "\n"
    assert run([*command[:2], "--samples", "0"]) == 2
    assert "samples" in capsys.readouterr().err


def test_a_folder_that_is_no_run_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the folder."""
    assert run(["generate", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_model_that_is_not_causal(
    recipe_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Build and train warn of it, train shows no sample, generate wants to be told by name."""
    ffn = {"use": "moe", "routing": "expert", "experts": 4, "n_ffn": 8}
    recipe = recipe_file(model={"stack": [{"attention": "mha", "ffn": ffn}]})
    folder = tmp_path / "run"
    warning = "warning: moe: not causal: "

    assert run(["build", str(recipe)]) == 0
    assert warning in capsys.readouterr().out
    assert run(["train", str(recipe), "--run-dir", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.err.count(warning) == 1
    assert "no sample, because the model is not causal: moe" in said.out
    assert "--allow-noncausal moe" in said.out.replace("\n", " ")

    assert run(["generate", str(folder), "line"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "moe: not causal: " in said.err
    assert said.err.rstrip().endswith("pass --allow-noncausal moe to generate anyway")
    assert said.err.count("\n") == 1
    assert run(["generate", str(folder), "line", "--allow-noncausal", "moe"]) == 0
    assert capsys.readouterr().out.startswith("line")


def test_weights(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rounded weights go on from the same prompt; another format is refused."""
    command = ["generate", str(trained), "line 1", "--max-new-tokens", "4", "--weights"]
    for weights in ("bfloat16", "int8"):
        assert run([*command, weights]) == 0
        assert capsys.readouterr().out.removesuffix("\n")
    assert run([*command, "int4"]) == 2
    assert "int4" in capsys.readouterr().err


def test_nothing_is_printed_before_an_error(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prompt waits until all is known to be right."""
    capsys.readouterr()
    for options in (["--steps", "2"], ["--draft-steps", "1"], ["--top-p", "0"]):
        assert run(["generate", str(trained), "line 1", *options]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
