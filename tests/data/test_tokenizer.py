"""Tokenizers of other hands, and files that are none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from strawberry.data import load_tokenizer
from strawberry.data.tokenizer import HubTokenizer
from strawberry.errors import StrawberryError


def hub(special: list[str]) -> str:
    """A tokenizer that the `tokenizers` library trained by itself."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(["a tale of two tails, and of three tales\n"] * 9, trainer)
    return made.to_str()


def test_any_tokenizer_json_will_do(tmp_path: Path) -> None:
    """A file of the `tokenizers` library encodes as that library does, and saves as it was."""
    path = tmp_path / "tokenizer.json"
    path.write_text(hub(["<|endoftext|>"]))
    loaded = load_tokenizer(path)
    assert isinstance(loaded, HubTokenizer)
    assert loaded.eot == loaded.special_tokens["<|endoftext|>"] == 0
    assert loaded.vocab_size <= 300
    text = "two tales \u00e9 <|endoftext|>"
    assert loaded.decode(loaded.encode(text)) == text
    assert 0 not in loaded.encode(text)
    assert loaded.encode(text, special=True)[-1] == 0
    assert [ids.tolist() for ids in loaded.encode_batch(["two", ""])] == [loaded.encode("two"), []]
    assert loaded.decode(loaded.encode("a\ud800")) == "a\ufffd"
    with pytest.raises(ValueError, match="outside"):
        loaded.decode([loaded.vocab_size])
    loaded.save(tmp_path / "copy.json")
    assert load_tokenizer(tmp_path / "copy.json").fingerprint == loaded.fingerprint


def metaspace() -> str:
    """A llama-like tokenizer: blanks as marks, bytes for what is not in the vocabulary."""
    names = [*(f"<0x{b:02X}>" for b in range(256)), "\u2581", *"ofandthe", "\u2581of", "\u2581the"]
    vocabulary = {name: i for i, name in enumerate(dict.fromkeys(["<unk>", "</s>", *names]))}
    merges = [("\u2581", "o"), ("\u2581o", "f"), ("\u2581", "t"), ("h", "e"), ("\u2581t", "he")]
    for name in ("\u2581o", "\u2581t", "he"):
        vocabulary[name] = len(vocabulary)
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
    made = tokenizers.Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    marks = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*marks, decoders.Strip(" ", 1, 0)])
    made.add_special_tokens(["</s>"])
    return made.to_str()


@pytest.mark.parametrize(("make", "before"), [(lambda: hub(["</s>"]), 0), (metaspace, 1)])
def test_bytes_are_counted_token_by_token(
    tmp_path: Path, make: Callable[[], str], before: int
) -> None:
    """Lengths add up to those of the text, be it bytes or marks; the end of a text has none.

    A mark that a tokenizer puts before a text is a blank of its own.
    """
    (tmp_path / "tokenizer.json").write_text(make())
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    for text in ("the of and the", "of \u00e9t\u00e9 \u4e16\n  the"):
        ids = [*loaded.encode(text), loaded.eot]
        assert loaded.byte_lengths[ids].sum() == len(text.encode()) + before


def test_a_tokenizer_must_end_documents(tmp_path: Path) -> None:
    """Without a token that ends a text, a tokenizer is refused by name."""
    path = tmp_path / "tokenizer.json"
    path.write_text(hub(["[CLS]"]))
    with pytest.raises(StrawberryError, match=r"tokenizer\.json: has no end-of-text token"):
        load_tokenizer(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"model": 1}'])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no tokenizer.json is one line with its name."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(StrawberryError, match=r"tokenizer\.json: not a tokenizer\.json"):
        load_tokenizer(path)
    with pytest.raises(StrawberryError, match="No such file"):
        load_tokenizer(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["cl8k.bin", "encoder.json"])
def test_pickled_encoders_are_never_opened(tmp_path: Path, name: str) -> None:
    """The original's own encoder file is refused, by its name and by its content."""
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"pattern": "", "special": {}, "vocab": {}}))
    with pytest.raises(StrawberryError, match="never opened"):
        load_tokenizer(path)
