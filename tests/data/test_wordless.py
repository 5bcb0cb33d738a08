"""Ids that no text can have, said before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strawberry.cli.app import run
from strawberry.data.bpe import byte_tokenizer


@pytest.mark.parametrize(
    ("sections", "known"),
    [
        ("data: stdlib\ntokenizer: bytes", 257),
        ("data: stdlib\ntokenizer: {{use: bytes, special_tokens: ['<|eot|>', '<|x|>']}}", 258),
        ("data: stdlib\ntokenizer: {{use: bpe, vocab_size: 300}}", 300),
        ("data: stdlib\ntokenizer: {{use: bpe, path: {folder}/tokenizer.json}}", 260),
        ("data: {{use: text, path: nowhere.txt}}\ntokenizer: bytes", 257),
        ("data: {{use: tokens, path: {folder}/prepared}}", 260),
        ("data: {{use: shards, path: {folder}/ids.npy}}", 260),
        ("data: {{use: tokens, path: nowhere}}", None),
        ("data: stdlib\ntokenizer: {{use: bpe, path: nowhere.json}}", None),
        ("data: stdlib\ntokenizer: bpe", None),
        ("data: {{use: synthetic, task: in_context_recall}}\ntokenizer: bytes", None),
    ],
)
def test_build_says_it_where_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sections: str, known: int | None
) -> None:
    """Of bytes, files and prepared folders; not of what is yet to be learnt, or has no text."""
    ends = ("<|eot|>", "<|a|>", "<|b|>", "<|c|>")
    byte_tokenizer(ends).save(tmp_path / "tokenizer.json")
    (tmp_path / "ids.npy").write_bytes(b"")
    (tmp_path / "a.txt").write_text("some text, and more of it. " * 40)
    prepare = ["data", "prepare", str(tmp_path / "a.txt"), "--tokenizer"]
    assert (
        run([*prepare, str(tmp_path / "tokenizer.json"), "--out", str(tmp_path / "prepared")]) == 0
    )
    model = "model: {vocab_size: 512, block_size: 16, n_embd: 16, stack: [{attention: mha}]}\n"
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\n{model}{sections.format(folder=tmp_path)}\n")
    capsys.readouterr()
    assert run(["build", str(recipe), "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    found = [line for line in warnings if "no text has" in line]
    expected = f"the tokenizer has {known} ids, the model 512: no text has the other"
    assert len(found) == (known is not None)
    assert all(line.startswith(expected) for line in found)
