"""The tokenizer sources `bpe` and `bytes`: their fields reach what they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from strawberry.components.tokenizer.bpe import BPE
from strawberry.components.tokenizer.bytes import ByteTokenizer
from strawberry.contracts.data import Corpus, DataSite
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data.bpe import PATTERNS, SPECIAL_TOKENS, BPETokenizer
from strawberry.data.texts import text_corpus
from strawberry.errors import FieldError


def unused(corpus: Corpus) -> Tokenizer:
    """Tokenizer sources don't ask for a tokenizer."""
    raise AssertionError


@pytest.fixture
def site(tmp_path: Path) -> DataSite:
    """A model of 300 ids."""
    return DataSite(300, 8, 0, tmp_path / "cache", (tmp_path,), unused)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Some text to learn from; its end is validation, and in other words."""
    text = (
        "the rain in spain stays mainly in the plain, they say again and again, or so it is said\n"
        * 90
    )
    text += "QQZZ QQZZ QQZZ QQZZ\n" * 20
    (tmp_path / "a.txt").write_text(text)
    return text_corpus(["a.txt"], [tmp_path], cache=tmp_path / "cache")


def test_bpe_takes_the_models_vocabulary(site: DataSite, corpus: Corpus) -> None:
    """Without a size of its own, a BPE fills the model's vocabulary, special tokens included."""
    made = BPE(site).open(corpus)
    assert made.vocab_size == 300
    assert list(made.special_tokens) == list(SPECIAL_TOKENS)
    assert BPE(site, vocab_size=270).open(corpus).vocab_size == 270


def test_bpe_learns_of_the_training_split_alone(site: DataSite, corpus: Corpus) -> None:
    """No merge comes of validation text."""
    made = BPE(site, special_tokens=("<|eot|>",)).open(corpus)
    assert isinstance(made, BPETokenizer)
    assert b" in" in made.tokens
    assert not [token for token in made.tokens if b"QQ" in token or b"ZZ" in token]


def test_each_field_makes_another_tokenizer(site: DataSite, corpus: Corpus) -> None:
    """Size, pattern, special tokens and how much is read all count, in the cache too."""
    made = [
        source.open(corpus).fingerprint
        for source in (
            BPE(site),
            BPE(site, vocab_size=280),
            BPE(site, pattern="gpt2"),
            BPE(site, pattern=PATTERNS["gpt4o"]),
            BPE(site, special_tokens=("<|eot|>",)),
            BPE(site, train_bytes=50),
        )
    ]
    assert len(set(made)) == len(made)
    assert BPE(site).open(corpus).fingerprint == made[0]


def test_bpe_from_a_file(site: DataSite, corpus: Corpus, tmp_path: Path) -> None:
    """A path is loaded as it is; a pickle is refused whether or not it is there."""
    BPE(site, vocab_size=290).open(corpus).save(tmp_path / "mine.json")
    assert BPE(site, path="mine.json").open(corpus).vocab_size == 290
    for path, message in {"cl8k.bin": "tokenizer train", "none.json": "no such file"}.items():
        with pytest.raises(FieldError, match=message) as caught:
            BPE(site, path=path).open(corpus)
        assert caught.value.field == "path"


def test_bytes(site: DataSite, corpus: Corpus) -> None:
    """256 bytes and the end of a text, or the special tokens that one names."""
    assert ByteTokenizer(site).open(corpus).vocab_size == 257
    made = ByteTokenizer(site, special_tokens=("<|eot|>", "<|sep|>")).open(corpus)
    assert made.special_tokens == {"<|eot|>": 256, "<|sep|>": 257}


def test_fields_that_cannot_work_are_refused_at_once(site: DataSite, corpus: Corpus) -> None:
    """A wrong field is an error of that field, before any text is read."""
    with pytest.raises(FieldError, match="must be among"):
        ByteTokenizer(site, special_tokens=("<|x|>",))
    with pytest.raises(FieldError, match="duplicate special token"):
        BPE(site, special_tokens=("<|eot|>", "<|eot|>"))
    with pytest.raises(FieldError, match="neither one of gpt2"):
        BPE(site, pattern="gpt5")
    with pytest.raises(FieldError, match="must be at least 263"):
        BPE(site, vocab_size=260).open(corpus)
