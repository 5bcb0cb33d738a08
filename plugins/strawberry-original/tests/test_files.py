"""The original project's pickled encoders and data sets, as its own code writes them."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strawberry_original.files import TOKENS, load_encoder, write_dataset
from strawberry_original.pickled import load_plain

from strawberry.data import PATTERNS, SPECIAL_TOKENS, open_tokens
from strawberry.errors import StrawberryError
from strawberry.files import FileFingerprints

MERGES = [b"th", b"the", b" the", b"in", b"ing"]


def encoder(**changes: Any) -> dict[str, Any]:
    """What an encoder file pickles."""
    tokens = [*(bytes([b]) for b in range(256)), *MERGES]
    return {
        "pattern": PATTERNS["gpt4o"],
        "special": {text: len(tokens) + i for i, text in enumerate(SPECIAL_TOKENS)},
        "vocab": dict(enumerate(tokens)),
        **changes,
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Pickles a value as the original does."""

    def pickled(value: Any, protocol: int | None = None) -> Path:
        path = tmp_path / "file.bin"
        path.write_bytes(pickle.dumps(value, protocol))
        return path

    return pickled


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_encoder_has_the_originals_vocabulary(write: Callable[..., Path], protocol: int) -> None:
    """Ids, bytes and special tokens are those of the file, in every protocol since Python 3."""
    value = encoder()
    made = load_encoder(write(value, protocol))
    assert dict(enumerate(made.tokens)) == value["vocab"]
    assert made.special_tokens == value["special"]
    assert made.pattern == value["pattern"]
    ids = made.encode("the thing<|eot|>", special=True)
    assert made.decode(ids) == "the thing<|eot|>"
    assert ids[-1] == value["special"]["<|eot|>"]


def test_of_two_merges_with_the_same_bytes_the_later_counts(write: Callable[..., Path]) -> None:
    """As in the original, which encodes to that one alone; the other keeps its id."""
    value = encoder()
    value["vocab"][len(value["vocab"])] = b"the"
    value["special"] = {text: i + 1 for text, i in value["special"].items()}
    made = load_encoder(write(value))
    assert made.encode("the") == [256 + len(MERGES)]
    assert made.vocab_size == 256 + len(MERGES) + 1 + len(SPECIAL_TOKENS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab": {0: b"a"}}, "256 bytes"),
        ({"vocab": [b"a"]}, "mappings"),
        ({"vocab": {**encoder()["vocab"], 260: "ing"}}, "id 260 has no bytes"),
        ({"special": {"<|eot|>": 7}}, "must follow the vocabulary"),
        ({"special": {"<|eop|>": 261}}, r"<\|eot\|> must be among"),
        ({"pattern": "[a-z]"}, "matches all text"),
        ({"pattern": 3}, "must be strings"),
        ({"more": 1}, "not an encoder"),
    ],
)
def test_an_encoder_that_is_none_is_told(
    write: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    """Each with what is wrong, and the file."""
    with pytest.raises(StrawberryError, match=said) as caught:
        load_encoder(write(encoder(**changes)))
    assert "file.bin" in str(caught.value)


def test_a_data_set_keeps_its_ids(write: Callable[..., Path], tmp_path: Path) -> None:
    """Every document is in the token file, whole; the order is that of a digest."""
    documents = [[1, 2, 300], [], [5] * 70, [7, 8]]
    path = write({"dataset": documents})
    assert write_dataset(load_plain(path), path, tmp_path / "out", None) == 75
    file = open_tokens(tmp_path / "out" / TOKENS, FileFingerprints(tmp_path / "cache"))
    assert file.vocab_size == 301
    assert sorted(file.ids.tolist()) == sorted(i for ids in documents for i in ids)
    text = file.ids.astype(np.int64).tobytes()
    assert all(np.array(ids).tobytes() in text for ids in documents if ids)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("text", "must be a list"),
        ([1, 2], "must be a list of documents"),
        ([[1, -2]], "document 0"),
        ([[1], [True]], "document 1"),
        ([[1], ["a"]], "document 1"),
        ([[1 << 40]], "document 0"),
        ([[]], "contains no ids"),
        ([[1] * 100] * 1000, "more than it can hold"),
        ([[400]], "has id 400"),
    ],
)
def test_a_data_set_that_is_none_is_told(
    write: Callable[..., Path], tmp_path: Path, dataset: Any, said: str
) -> None:
    """Ids that are none, or are not the encoder's, and lists that unfold beyond their file."""
    made = load_encoder(write(encoder()))
    path = write({"dataset": dataset})
    with pytest.raises(StrawberryError, match=said):
        write_dataset(load_plain(path), path, tmp_path / "out", made)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [OrderedDict(a=1), {1, 2}, np.arange(3), Path("a"), bytearray(1)])
def test_what_needs_a_class_is_not_plain(write: Callable[..., Path], value: Any) -> None:
    """The instruction is named, with its byte; protocol 2 as well as 5."""
    for protocol in (2, 5):
        with pytest.raises(StrawberryError, match=r"byte \d+: refused instruction [A-Z_]+"):
            load_plain(write(value, protocol))


def test_damaged_pickles_are_told(write: Callable[..., Path], tmp_path: Path) -> None:
    """Cut anywhere, with something behind its end, or no pickle at all."""
    content = pickle.dumps(encoder())
    path = tmp_path / "file.bin"
    cuts = [content[:at] for at in range(0, len(content) - 1, 37)]
    odd = (b"hello", b"P\\ \n.", b"S'\\ '\n.", b"\x80\x05r\xff\xff\xff\x7f.")
    for damaged in (*cuts, content + b".", *odd):
        path.write_bytes(damaged)
        with pytest.raises(StrawberryError, match=r"file\.bin"):
            load_plain(path)
