"""N-gram heads against a loop over all earlier places, and within documents."""

import itertools

import pytest
import torch

import strawberry
from strawberry.contracts import Use
from tests.support import tiny

IDS = [3, 3, 7, 3, 3, 7, 60, 3, 7, 60, 3, 3, 7, 60]


def expected(mixer, x, starts):
    """The equation, token by token: the latest places of the same ids, in the same document."""
    y = torch.zeros_like(x)
    for t in range(len(IDS)):
        begin = max(s for s in starts if s <= t)
        heads = []
        for back, order in itertools.product(range(1, mixer.places + 1), mixer.orders):
            gram = IDS[t - order + 1 : t + 1] if t - order + 1 >= begin else None
            found = [s for s in range(begin + order - 1, t) if IDS[s - order + 1 : s + 1] == gram]
            heads.append(x[found[-back] + 1] if len(found) >= back else torch.zeros_like(x[t]))
        y[t] = mixer.out.weight @ torch.cat(heads)
    return y


@pytest.mark.parametrize("starts", [[0], [0, 1, 7]], ids=["one document", "three documents"])
def test_equation(starts):
    """Each head has what came after the latest places of its n ids, within a document."""
    entry = {"attention": {"use": "ngram_heads", "orders": [1, 2, 4], "places": 2}, "norm": "none"}
    model = strawberry.build(tiny(entry)).double().eval()
    mixer = model.visits()[0].block.attention
    x = torch.randn(len(IDS), 16, dtype=torch.float64)
    marks = torch.zeros(len(IDS), dtype=torch.int64)
    marks[starts] = 1
    with torch.no_grad():
        use = Use(
            torch.arange(len(IDS)), 0, model.positional, model.weights,
            tokens=torch.tensor(IDS)[None],
            documents=marks.cumsum(0)[None] if len(starts) > 1 else None,
        )  # fmt: skip
        y = mixer(x[None], use)[0]

        torch.testing.assert_close(y, expected(mixer, x, starts))
