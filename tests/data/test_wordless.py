"""Ids that no text can have, said before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from strawberry.cli.app import run
from strawberry.data.bpe import byte_tokenizer
from strawberry.generation.decode import Sequences
from strawberry.generation.load import load_run
from strawberry.generation.text import generate_batch


def test_ids_between_others_are_told_and_never_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer of the hub with gaps: training says which, and no text has them."""
    words = {"</s>": 0, "a": 1, "b": 2, "c": 11}
    made = Tokenizer(models.WordLevel(words, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "t.json"))
    (tmp_path / "a.txt").write_text("a b c b a " * 99)
    (tmp_path / "r.yaml").write_text(
        "name: r\nmodel: {vocab_size: 12, block_size: 8, n_embd: 8, stack: [{attention: mha}]}\n"
        "data: {use: text, path: a.txt}\ntokenizer: {use: bpe, path: t.json}\n"
        "train: {max_iters: 1, warmup_iters: 0, eval_iters: 1, batch_size: 2, device: cpu}\n"
    )
    assert run(["train", str(tmp_path / "r.yaml"), "--run-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "8 of the tokenizer's 12 ids are unused" in said
    assert "3, 4, 5, ..." in said
    loaded = load_run(tmp_path / "run")
    for text in generate_batch(loaded, ["a"], samples=8, max_new_tokens=40):
        assert all(set(one.split()) <= words.keys() for one in text)
    logits = Sequences(loaded.model, torch.tensor([[1, 2]]), 3).logits()
    assert logits.isfinite().nonzero()[:, 1].tolist() == sorted(words.values())


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
    found = [line for line in warnings if "occur in no text" in line]
    expected = f"the tokenizer has {known} ids, the model 512: the other"
    assert len(found) == (known is not None)
    assert all(line.startswith(expected) for line in found)
