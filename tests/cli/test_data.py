"""`strawberry data` and `strawberry tokenizer`, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strawberry.cli.app import run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text, which is the current one."""
    monkeypatch.setenv("STRAWBERRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    text = "".join(f"It was line {i} of {i * i}, or so they said.\n" for i in range(200))
    (tmp_path / "text.txt").write_text(text)
    return tmp_path


def test_a_tokenizer_is_trained_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    """Train a tokenizer, prepare text with it: both say what they made, also as JSON."""
    train = ["tokenizer", "train", "text.txt", "--out", "t.json", "--vocab-size", "290"]
    assert run([*train, "--special", "<|eot|>", "--special", "<|x|>", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["vocab_size"] == 290
    assert made["special_tokens"] == {"<|eot|>": 288, "<|x|>": 289}
    prepare = ["data", "prepare", "text.txt", "--tokenizer", "t.json", "--out"]
    assert run([*prepare, "out", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["vocab_size"] == 290
    assert out["tokenizer"] == made["fingerprint"]
    assert sum(out["bytes"].values()) == made["bytes"] == Path("text.txt").stat().st_size
    assert run([*prepare, "again"]) == 0
    assert "data: {use: tokens, path: again}" in capsys.readouterr().out
    assert run(train) == 0
    assert "t.json: vocabulary 290, trained on 0.01 MB" in capsys.readouterr().out


def test_documents_that_are_left_out_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """By every command that reads text: prepare, tokenizer train, train."""
    rows = [{"text": None}, *({"text": f"line {i}\n" * 9} for i in range(40)), {"text": ""}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("recipe.yaml").write_text(
        "model: {vocab_size: 257, block_size: 8, n_embd: 8, stack: [{ffn: swiglu}]}\n"
        "data: {use: text, path: rows.jsonl}\ntokenizer: bytes\ntrain: {max_iters: 1}\n"
    )
    for command in (
        ["data", "prepare", "rows.jsonl", "--out", "out", "--vocab-size", "280"],
        ["tokenizer", "train", "rows.jsonl", "--out", "t.json", "--vocab-size", "280"],
        ["train", "recipe.yaml", "--run-dir", "run"],
    ):
        assert run(command) == 0
        assert "2 of 42 documents are empty or null and were left out" in capsys.readouterr().err


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, each stage is a line beside the result, not within it."""
    assert run(["data", "prepare", "text.txt", "--out", "out", "--vocab-size", "280"]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.err.splitlines()] == [
        "reading", "counting", "merging", "encoding",
    ]  # fmt: skip
    assert "encoding" not in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "prepare", "none.txt", "--out", "out"], "none.txt: no such file or folder"),
        (["data", "prepare", "a.bin", "--out", "out"], "a.bin: a pickle or binary file"),
        (["data", "prepare", "text.txt", "--out", "."], ".: exists and is not empty"),
        (["data", "prepare", "text.txt"], "missing option '--out'"),
        (["data", "prepare", "text.txt", "--out", "o", "--tokenizer", "no.json"], "no.json: No su"),
        (
            ["data", "prepare", "text.txt", "--out", "o", "--vocab-size", "9"],
            "must be at least 263",
        ),
        (
            ["tokenizer", "train", "text.txt", "--out", "t", "--vocab-size", "9"],
            "must be at least 263",
        ),
        (["tokenizer", "train", "text.txt", "--out", ".", "--vocab-size", "300"], ".: is a folder"),
        (["tokenizer"], "missing command"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Each mistake of the user is a line on standard error and exit code 2."""
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
