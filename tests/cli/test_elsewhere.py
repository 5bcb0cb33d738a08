"""A recipe's relative paths, and a run's, mean the same files from wherever a command is given."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from strawberry.cli.app import run

MODEL = "model: {vocab_size: 270, block_size: 8, n_embd: 8, stack: [{ffn: swiglu}]}\n"
TRAIN = "train: {max_iters: 2, lr_decay_iters: 2, eval_iters: 1, threads: 1}\n"
TEXT = "".join(f"line {i} of {i * i}\n" for i in range(400))
Give = Callable[..., str]


@pytest.fixture
def give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Give:
    """Gives a command from a folder, and what it says; it must succeed, or end with `code`."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    for folder in ("project", "begun", "later"):
        (tmp_path / folder).mkdir()
    (tmp_path / "project" / "corpus.txt").write_text(TEXT)

    def command(folder: str, *words: str, code: int = 0) -> str:
        monkeypatch.chdir(tmp_path / folder)
        capsys.readouterr()
        assert run(list(words)) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return said.out + said.err

    return command


@pytest.mark.parametrize(
    "data",
    [
        "data: {use: text, path: corpus.txt}\ntokenizer: bytes\n",
        pytest.param(
            "data: {use: text, path: 'c*s.txt'}\ntokenizer: bytes\n", marks=pytest.mark.slow
        ),
        "data: {use: text, path: ./corpus.txt}\ntokenizer: {use: bpe, path: tokenizer.json}\n",
        "data: {use: tokens, path: tokens}\n",
    ],
)
def test_a_run_is_used_from_anywhere(tmp_path: Path, give: Give, data: str) -> None:
    """Begun beside the recipe's folder, it is evaluated, profiled, resumed, forked from a third."""
    project, begun, recipe = tmp_path / "project", tmp_path / "begun" / "run", "../project/x.yaml"
    give("project", "data", "prepare", "corpus.txt", "--out", "tokens", "--vocab-size", "270")
    shutil.copy(project / "tokens" / "tokenizer.json", project)
    (project / "x.yaml").write_text(MODEL + data + TRAIN)
    give("begun", "train", recipe, "--run-dir", "run")
    # What is called the same where somebody stands is not what the run was trained on.
    (tmp_path / "later" / "corpus.txt").write_text("something else\n" * 99)
    expected = json.loads(give("begun", "eval", "run", "--json"))
    assert json.loads(give("later", "eval", str(begun), "--json")) == expected
    give("later", "profile", str(begun), "--steps", "1")
    give("later", "generate", str(begun), "--max-new-tokens", "2")
    more = ("--set", "train.max_iters=3")
    give("later", "train", recipe, "--run-dir", str(begun), "--resume", *more)
    give("later", "train", str(begun), "--run-dir", "again", *more)
    give("later", "train", recipe, "--run-dir", "child", "--fork", "../begun/run",
         "--set", "train.max_iters=4")  # fmt: skip
    last = json.loads(give("project", "eval", "../later/child", "--json"))
    assert last["step"] == 4


def test_paths_of_extended_recipes_and_of_the_folder_of_the_command(
    tmp_path: Path, give: Give
) -> None:
    """They are found beside the file that is extended; those of the command line, from there."""
    (tmp_path / "project" / "base.yaml").write_text(
        MODEL + "data: {use: text, path: corpus.txt}\ntokenizer: bytes\n" + TRAIN
    )
    (tmp_path / "begun" / "x.yaml").write_text("extends: ../project/base.yaml\n")
    give("later", "train", "../begun/x.yaml", "--run-dir", "run")
    (tmp_path / "later" / "own.txt").write_text(TEXT)
    own = ("--set", "data.path=own.txt")
    give("later", "train", "../begun/x.yaml", "--run-dir", "own", *own)
    assert "own.txt" in (tmp_path / "later" / "own" / "recipe.yaml").read_text()
    give("project", "eval", "../later/own")
    give("project", "train", "../begun/x.yaml", "--run-dir", "../later/own", "--resume", *own)


def test_ablations_are_used_from_anywhere(tmp_path: Path, give: Give) -> None:
    """A plan's data is found beside it too; its trials and reports need no more than that."""
    (tmp_path / "project" / "x.yaml").write_text(MODEL + "tokenizer: bytes\n" + TRAIN)
    (tmp_path / "begun" / "own.txt").write_text(TEXT)
    (tmp_path / "begun" / "plan.yaml").write_text(
        "ablate: ../project/x.yaml\nset: {data: {use: text, path: own.txt}}\nseeds: 1\n"
        "vary: {n_embd: [8, 16]}\nexecutor: {use: local, jobs: 2}\n"
    )
    give("later", "ablate", "../begun/plan.yaml", "--out", "table")
    (trial, *_) = sorted((tmp_path / "later" / "table" / "trials").iterdir())
    give("project", "eval", str(trial / "run"))
    give("project", "report", "../later/table")
    assert "match:" in give("project", "ablate", str(trial), "--reproduce")


def test_cached_tokens_stand_for_text_that_is_gone(tmp_path: Path, give: Give) -> None:
    """A run needs its text no more; other sections, or an emptied cache, do."""
    (tmp_path / "project" / "x.yaml").write_text(
        MODEL + "data: {use: text, path: corpus.txt}\ntokenizer: bytes\n" + TRAIN
    )
    give("project", "train", "x.yaml", "--run-dir", "run")
    expected = json.loads(give("project", "eval", "run", "--json"))
    (tmp_path / "project" / "corpus.txt").unlink()
    assert json.loads(give("later", "eval", "../project/run", "--json")) == expected
    more = ("--resume", "--set", "train.max_iters=3")
    said = give("later", "train", "../project/x.yaml", "--run-dir", "../project/run", *more)
    assert "its text is missing; its tokens are" in said
    again = ("train", "../project/run", "--run-dir", "new")
    give("later", *again)
    said = give("later", *again, "--set", "data.special=true", "--run-dir", "x", code=2)
    assert "corpus.txt: no such file or folder" in said
    said = give("project", "train", "x.yaml", "--run-dir", "y", code=2)
    assert "corpus.txt: no such file or folder" in said
    shutil.rmtree(tmp_path / "cache" / "tokens")
    assert "no such file or folder" in give("later", "eval", "../project/run", code=2)
