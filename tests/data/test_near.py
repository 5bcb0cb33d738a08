"""Copies in another guise are found in text, and text of the same kind is not accused."""

import random
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import strawberry
from strawberry.contracts.tokenizer import Tokenizer
from strawberry.data import bpe
from strawberry.data.near import near_copies

ROOT = Path(strawberry.__file__).parent
FILES = sorted(ROOT.glob("*/*.py"))
TEXTS = [path.read_text() for path in FILES]
TRAIN, NEW = [t for n, t in enumerate(TEXTS) if n % 4], TEXTS[::4]
NAMES = {"self": "this", "recipe": "receta", "path": "where", "name": "title", "value": "amount",
         "model": "network", "number": "count_of", "found": "hits"}  # fmt: skip


def renamed(text: str) -> str:
    """The names changed throughout."""
    return re.sub(r"\w+", lambda m: NAMES.get(m[0], m[0]), text)


def spaced(text: str) -> str:
    """Other blanks: tabs, and more of them."""
    return text.replace("    ", "\t").replace(" = ", "  =  ").replace(", ", ",")


def wrapped(text: str) -> str:
    """Lines broken elsewhere."""
    return "\n".join(textwrap.wrap(text, 61))


GUISES: dict[str, Callable[[str], str]] = {
    "verbatim": str,
    "blanks": spaced,
    "lines": wrapped,
    "case": str.upper,
    "names": renamed,
}


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    size = 263 if request.param == "bytes" else 600
    return bpe.train_bpe(TRAIN, size, n_bytes=sum(map(len, TRAIN)))


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    return [np.array([*tokenizer.encode(text), tokenizer.eot], np.uint16) for text in texts]


@pytest.mark.parametrize("guise", GUISES)
def test_each_guise_is_found(guise: str, tokenizer: Tokenizer) -> None:
    """Training text in that guise is; new text of the same kind is not taken for it."""
    train = ids(tokenizer, TRAIN)
    rng = random.Random(0)
    copies = [GUISES[guise](text) for text in rng.sample(TRAIN, 30)]
    copied = near_copies(tokenizer, train, ids(tokenizer, copies))
    new = near_copies(tokenizer, train, ids(tokenizer, NEW))
    assert copied is not None
    assert new is not None
    assert copied > (0.85 if guise == "names" else 0.95)
    assert new < 0.02


def test_too_short_a_text_says_nothing(tokenizer: Tokenizer) -> None:
    """Without a whole window there is no share."""
    assert near_copies(tokenizer, ids(tokenizer, TRAIN[:2]), ids(tokenizer, ["a b c"])) is None
