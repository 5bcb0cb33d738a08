"""N-gram vectors against a loop over tokens, and where a document begins."""

import pytest
import torch

import strawberry
from strawberry.components.attention.ngram import FACTORS
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from tests.support import tiny

ROWS = 97
ENTRY = {"attention": {"use": "ngram", "orders": [1, 2, 3], "rows": ROWS}, "norm": "none"}


def mixer_of(entry):
    """A one-block model, and its mixer."""
    model = strawberry.build(tiny(entry)).double().eval()
    return model, model.visits()[0].block.attention


def place(gram):
    """The row of a gram, its newest id first, in Python's own numbers."""
    mixed = gram[0] + 1
    for n, token in enumerate(gram):
        mixed = ((mixed * FACTORS[0]) ^ ((token + 1) * FACTORS[n])) % (2**31 - 1)
    return mixed % ROWS


def expected(mixer, x, ids, starts):
    """The equation, token by token; a document begins at the last of `starts` before it."""
    y = torch.zeros_like(x)
    for t in range(len(ids)):
        begin = max(s for s in starts if s <= t)
        for n, order in enumerate(mixer.orders):
            gram = [ids[t - back] if t - back >= begin else -1 for back in range(order)]
            y[t] += mixer.table[n * ROWS + place(gram)]
        y[t] *= 2 * torch.sigmoid(x[t] @ mixer.gate)
    return y


@pytest.mark.parametrize("starts", [[0], [0, 1, 5]], ids=["one document", "three documents"])
def test_equation(starts):
    """Each token gets the rows of the grams that end in it, within its document, times its gate."""
    model, mixer = mixer_of(ENTRY)
    ids = torch.tensor([3, 3, 7, 3, 3, 7, 60, 3, 7])
    x = torch.randn(len(ids), 16, dtype=torch.float64)
    documents = None
    if len(starts) > 1:
        marks = torch.zeros(len(ids), dtype=torch.int64)
        marks[starts] = 1
        documents = marks.cumsum(0)[None]
    with torch.no_grad():
        mixer.gate.normal_()
        use = Use(
            torch.arange(len(ids)), 0, model.positional, model.weights,
            tokens=ids[None], documents=documents,
        )  # fmt: skip
        y = mixer(x[None], use)[0]

        torch.testing.assert_close(y, expected(mixer, x, ids.tolist(), starts))


def test_too_long_grams_are_refused():
    """No multiplier is left for an id that is seven back; the message says how many there are."""
    with pytest.raises(RecipeError, match=r"orders.*7 ids are too many: 6 at most"):
        strawberry.build(tiny({"attention": {"use": "ngram", "orders": [2, 7]}}))
