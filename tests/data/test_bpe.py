"""Byte-pair encoding: three libraries agree, nothing is lost, and odd text is no trouble."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import rustbpe
import tiktoken
import tokenizers
from hypothesis import given, settings, strategies as st

from strawberry.data import bpe, load_tokenizer
from strawberry.data.bpe import PATTERNS, SPECIAL_TOKENS, BPETokenizer, byte_tokenizer, train_bpe
from strawberry.data.hub_format import from_document, to_document
from strawberry.errors import StrawberryError

PROSE = "The quick brown fox doesn't jump; it'LL walk 12345 miles, they've said.\r\n\r\n"
CODE = "def f(x, *, y=0x1F):\n    return x ** y  # \t tabs\n\n\nclass A(B):\n\tpass\n//* end *//\n"
WORLD = (
    "\u4f60\u597d\uff0c\u4e16\u754c \u041f\u0440\u0438\u0432\u0435\u0442 \u00e9t\u00e9 "
    "\U0001f353\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 "
    "\u0627\u0644\u0633\u0644\u0627\u0645 "
    "\u2028\u00a0\u3000\u01c5 \u0967\u0968\u0969\n"
)
VARIED = [
    "",
    " ",
    "\n",
    "a",
    PROSE,
    CODE,
    WORLD,
    " " * 1000,
    " " * 999 + "x",
    "\n" * 500 + "x",
    "\t \n\r\n  \r \n",
    "=" * 777 + "\n/path/to\n/x",
    "a" * 5000,
    "ab" * 3000,
    "\0\x01\x7f\ufeff\ufffd",
    "<|eot|> is text, and so is <|sink|>",
    (PROSE + CODE + WORLD) * 5,
]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """What the tokenizers of this module learn from."""
    chance = random.Random(0)
    words = (PROSE + CODE + WORLD).split(" ")
    return [" ".join(chance.choices(words, k=300)) for _ in range(60)] + VARIED


@pytest.fixture(scope="module", params=sorted(PATTERNS))
def trained(request: pytest.FixtureRequest, texts: list[str]) -> BPETokenizer:
    """A tokenizer for each of the named patterns."""
    return train_bpe(texts, 700, pattern=request.param)


def test_three_libraries_give_the_same_ids(trained: BPETokenizer, texts: list[str]) -> None:
    """What we save reads in `tokenizers`, and it, rustbpe and tiktoken encode alike."""
    saved = to_document(trained.tokens, list(trained.special_tokens), trained.pattern).decode()
    hub = tokenizers.Tokenizer.from_str(saved)
    hub.encode_special_tokens = True
    rust = rustbpe.Tokenizer()
    rust.train_from_iterator(iter(texts), 700 - len(SPECIAL_TOKENS), pattern=trained.pattern)
    tik = tiktoken.Encoding(
        "test",
        pat_str=trained.pattern,
        mergeable_ranks=dict(rust.get_mergeable_ranks()),
        special_tokens={},
    )
    for text in VARIED + texts[:20]:
        ids = trained.encode(text)
        assert ids == tik.encode_ordinary(text)
        assert ids == rust.encode(text)
        assert ids == hub.encode(text, add_special_tokens=False).ids
        assert trained.decode(ids) == text


CHARACTERS = st.sampled_from("ab =\n\r\t/.'1\u00e9\u4e16LlSs") | st.characters(codec="utf-8")


@settings(max_examples=150, deadline=None)
@given(text=st.text(CHARACTERS, max_size=80))
def test_any_text_survives(text: str) -> None:
    """Any text comes back whole, from tiktoken and from `tokenizers` through the same ids."""
    tokenizer, hub = _small()
    ids = tokenizer.encode(text)
    assert ids == hub.encode(text, add_special_tokens=False).ids
    assert (
        tokenizer.decode(ids) == text.encode("utf-8", "replace").decode() or max(text) >= "\ud800"
    )


_SMALL: list[tuple[BPETokenizer, tokenizers.Tokenizer]] = []


def _small() -> tuple[BPETokenizer, tokenizers.Tokenizer]:
    if not _SMALL:
        made = train_bpe([PROSE * 3, CODE * 3, WORLD * 3, "ab ab  ab\n" * 9], 420)
        saved = to_document(made.tokens, list(made.special_tokens), made.pattern).decode()
        hub = tokenizers.Tokenizer.from_str(saved)
        hub.encode_special_tokens = True
        _SMALL.append((made, hub))
    return _SMALL[0]


def test_training_is_deterministic(texts: list[str]) -> None:
    """The same texts give the same vocabulary, of the size asked for, special tokens last."""
    one, two = train_bpe(texts, 450), train_bpe(iter(texts), 450)
    assert one.tokens == two.tokens
    assert one.fingerprint == two.fingerprint != train_bpe(texts, 449).fingerprint
    assert one.vocab_size == 450
    assert list(one.special_tokens.values()) == list(range(443, 450))
    assert one.special_tokens["<|eot|>"] == one.eot == 445


def test_a_poor_text_gives_a_smaller_vocabulary() -> None:
    """A text with nothing left to merge ends training early, and the ids stay dense."""
    made = train_bpe(["aaaa"], 1000)
    assert made.vocab_size == len(made.tokens) + len(SPECIAL_TOKENS) < 300
    assert max(made.encode("aaaa<|mask|>", special=True)) == made.vocab_size - 1


def test_long_documents_are_cut_at_seams_without_changing_ids(
    monkeypatch: pytest.MonkeyPatch, trained: BPETokenizer
) -> None:
    """Encoding in pieces, by threads, gives the ids of encoding in one piece."""
    chance = random.Random(1)
    parts = ["\n", "\n\n", " ", "x", "Y", "/", "'s", "1", "\t", "\u00e9", ")", "\r\n", "word"]
    long = "".join(chance.choices(parts, k=20_000))
    whole = trained.encode(long)
    monkeypatch.setattr(bpe, "_PIECE", 50)
    batch = trained.encode_batch([long, "", "short"])
    assert batch[0].tolist() == whole
    assert [b.tolist() for b in batch[1:]] == [[], trained.encode("short")]


def test_runs_that_defeat_the_regex_engine_are_encoded_all_the_same() -> None:
    """Over a million blanks in a row neither stop training nor lose a character."""
    made = train_bpe(["x" + " " * 1_200_000 + "y", PROSE], 300)
    ids = made.encode(" " * 1_200_000 + "x")
    assert made.decode(ids) == " " * 1_200_000 + "x"


def test_special_tokens_are_ids_only_when_asked_for(trained: BPETokenizer) -> None:
    """The text of a special token is plain text, unless `special` says otherwise."""
    text = "a<|eot|>b"
    assert trained.eot not in trained.encode(text)
    assert trained.encode(text, special=True).count(trained.eot) == 1
    assert (
        trained.decode(trained.encode(text)) == trained.decode(trained.encode(text, True)) == text
    )


@pytest.mark.parametrize("special", [False, True])
def test_bytes_are_their_own_ids(special: bool) -> None:
    """The byte tokenizer's ids are the bytes of UTF-8, and special tokens where asked for."""
    made = byte_tokenizer(["<|eot|>", "<|sep|>"])
    for text in VARIED:
        if not special or "<|" not in text:
            assert made.encode(text, special) == list(text.encode())
        assert made.decode(made.encode(text, special)) == text
    assert made.encode("x<|sep|>", special=True) == [120, 257]


def test_lone_surrogates_become_the_replacement_character(trained: BPETokenizer) -> None:
    """Text that has no UTF-8 form is encoded as what a decoder would make of it."""
    assert trained.decode(trained.encode("a\ud800b")) == "a\ufffdb"
    assert train_bpe(["a\ud800b"], 300).tokens


def test_saved_and_loaded_is_the_same(tmp_path: Path, trained: BPETokenizer) -> None:
    """A saved tokenizer comes back as it was, and is encoded by the fast path again."""
    trained.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert isinstance(again, BPETokenizer)
    assert again.fingerprint == trained.fingerprint
    assert load_tokenizer(tmp_path).encode(CODE) == trained.encode(CODE)
    byte_tokenizer(["<|eot|>"]).save(tmp_path / "bytes.json")
    assert load_tokenizer(tmp_path / "bytes.json").encode("\u00e9") == [0xC3, 0xA9]


def test_ids_outside_of_the_vocabulary_are_refused(trained: BPETokenizer) -> None:
    """Decoding an id that does not exist is an error, negative ones included."""
    for wrong in (-1, trained.vocab_size):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            trained.decode([0, wrong])
    assert trained.decode(np.array(trained.encode("numpy too")).tolist()) == "numpy too"


def test_a_document_of_other_hands_is_not_taken_for_ours(trained: BPETokenizer) -> None:
    """Any change of a saved tokenizer's rules sends it to the `tokenizers` library."""
    plain = json.loads(to_document(trained.tokens, list(trained.special_tokens), trained.pattern))
    assert from_document(plain) is not None
    for change in (
        lambda d: d["model"]["merges"].pop(),
        lambda d: d["model"].update(ignore_merges=False),
        lambda d: d.update(normalizer={"type": "NFC"}),
        lambda d: d["model"]["vocab"].pop("a"),
        lambda d: d.update(model=None),
        lambda d: d.update(added_tokens=3),
    ):
        changed = json.loads(json.dumps(plain))
        change(changed)
        assert from_document(changed) is None
    assert from_document([]) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 200}, "must be at least 263"),
        ({"special_tokens": ["<|sep|>"]}, r"<\|eot\|> must be among"),
        ({"special_tokens": ["<|eot|>", "<|eot|>"]}, "duplicate special token"),
        ({"special_tokens": ["<|eot|>", "a b"]}, "no whitespace"),
        (
            {"pattern": "gtp4"},
            "neither one of gpt2, gpt4, gpt4o, code nor a pattern that matches all",
        ),
        ({"pattern": "(["}, "nor a regular expression"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    """A user's wrong setting is one line that says what would be right."""
    with pytest.raises(StrawberryError, match=message):
        train_bpe(["text"], **{"vocab_size": 300, **settings})  # type: ignore[arg-type]
