"""The `tokens` source: what `strawberry data prepare` made."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from strawberry.components.data.tokens import Tokens
from strawberry.contracts.data import Corpus, DataSite
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data import prepare
from strawberry.errors import FieldError


def unused(corpus: Corpus) -> Tokenizer:
    """The recipe's tokenizer, which prepared tokens don't need."""
    raise AssertionError


@pytest.fixture
def site(tmp_path: Path) -> DataSite:
    """A place with a prepared folder `out`."""
    (tmp_path / "a.txt").write_text("Some text, and then some more of it.\n" * 50)
    prepare([str(tmp_path / "a.txt")], tmp_path / "out", vocab_size=280, cache=tmp_path / "cache")
    return DataSite(280, 8, 0, tmp_path / "cache", (tmp_path,), unused)


def test_a_folder_or_one_of_its_files(site: DataSite, tmp_path: Path) -> None:
    """A folder has its splits; a file is divided, and finds the tokenizer beside it."""
    folder = Tokens(site, path="out").open()
    file = Tokens(site, path=str(tmp_path / "out" / "train.tok"), data_division=0.5).open()
    n_tokens = folder.n_tokens("train")
    assert n_tokens is not None
    assert file.n_tokens("train") == round(n_tokens / 2)
    assert file.tokenizer is not None
    (tmp_path / "out" / "tokenizer.json").unlink()
    assert Tokens(site, path="out/train.tok").open().tokenizer is None


def test_what_is_no_token_file_is_refused(site: DataSite, tmp_path: Path) -> None:
    """Missing paths, pickles under any name, and other files are refused at the field `path`."""
    (tmp_path / "a.tok").write_bytes(pickle.dumps([1, 2]))
    shutil.copytree(tmp_path / "out", tmp_path / "cut")
    (tmp_path / "cut" / "train.tok").unlink()
    for path, message in {
        "none": "no such file or folder",
        "ids.bin": "never opened",
        "a.tok": "never opened",
        "a.txt": "not a token file",
        "cut": "train.tok: No such file",
    }.items():
        with pytest.raises(FieldError, match=message) as caught:
            Tokens(site, path=path).open()
        assert caught.value.field == "path"


def test_ids_of_another_project_are_led_to_shards(site: DataSite, tmp_path: Path) -> None:
    """A nanoGPT folder is not said to be damaged."""
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "train.bin").write_bytes(bytes(64))
    with pytest.raises(FieldError, match=r"such as train\.bin, need data \{use: shards\}"):
        Tokens(site, path="nano").open()
