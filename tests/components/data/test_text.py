"""The `text` source: files, folders and patterns, and special tokens within documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strawberry.components.data.text import TextFiles
from strawberry.contracts.data import Dataset, DataSite
from strawberry.data.bpe import byte_tokenizer
from strawberry.errors import FieldError


@pytest.fixture
def site(tmp_path: Path) -> DataSite:
    """A place for bytes as tokens, with paths from the test's folder."""
    tokenizer = byte_tokenizer(["<|eot|>", "<|sep|>"])
    return DataSite(258, 8, 0, tmp_path / "cache", (tmp_path,), lambda _: tokenizer)


def everything(dataset: Dataset) -> str:
    """Both splits as text."""
    texts = []
    for split in ("train", "val"):
        n_tokens = dataset.n_tokens(split)
        assert n_tokens is not None
        x, y = dataset.rows(split, 0, 1, block_size=n_tokens - 1, seed=0)
        assert dataset.tokenizer is not None
        texts.append(dataset.tokenizer.decode([*x[0].tolist(), int(y[0, -1])]))
    return "".join(texts)


def test_files_folders_and_patterns(tmp_path: Path, site: DataSite) -> None:
    """The original's JSON list, JSON lines and plain text come out as one corpus."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.json").write_text(json.dumps(["from a list", "and more of it"]))
    (tmp_path / "texts" / "b.jsonl").write_text('{"body": "from a line"}\n')
    (tmp_path / "texts" / "c.txt").write_text("from a text")
    found = everything(TextFiles(site, path="texts", field="body", data_division=0.5).open())
    for text in ("from a list<|eot|>", "and more of it<|eot|>", "line<|eot|>", "text<|eot|>"):
        assert text in found
    some = everything(TextFiles(site, path="texts/*.json", data_division=0.5).open())
    assert "from a list" in some
    assert "from a line" not in some


def test_special_tokens_in_documents(tmp_path: Path, site: DataSite) -> None:
    """`special` turns their texts into ids, and is not confused with data that has none."""
    (tmp_path / "a.txt").write_text("question<|sep|>answer\n" * 9)
    plain = TextFiles(site, path="a.txt").open()
    special = TextFiles(site, path="a.txt", special=True).open()
    assert plain.n_tokens("train") - special.n_tokens("train") == 6 * 8  # type: ignore[operator]
    assert plain.fingerprint != special.fingerprint


def test_a_wrong_path_is_a_wrong_field(site: DataSite) -> None:
    """What is wrong with the path is said of the field `path`."""
    for path in ("none.txt", "data.bin", ""):
        with pytest.raises(FieldError) as caught:
            TextFiles(site, path=path).open()
        assert caught.value.field == "path"
