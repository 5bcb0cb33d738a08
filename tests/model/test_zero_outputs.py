"""Blocks that begin as nothing: what a model is at the start, and that it learns from there."""

import pytest
import torch

import strawberry
from strawberry.errors import RecipeError
from tests.support import tiny

BLOCK = {"attention": {"use": "mha", "n_head": 2}, "ffn": {"use": "moe", "experts": 2}}


def built(weights):
    """A model of two blocks with these weights, in a recursion of two steps."""
    entry = {"recur": 2, "weights": weights, "stack": [{"repeat": 2, **BLOCK}]}
    return strawberry.build(tiny(entry, parametrization={"zero_outputs": True}))


@pytest.mark.parametrize("weights", ["owned", "shared", "factorized", {"use": "step_lora"}])
def test_starts_as_its_embeddings(weights):
    """Whatever the source of its matrices, the model is a head over normed embeddings at first.

    After a few steps of gradient descent every parameter has a slope: outputs learn first.
    """
    model = built(weights)
    idx = torch.randint(61, (4, 8))
    with torch.no_grad():
        plain = model.head_logits(model.norm(model.embed(idx, model.use(idx))))
        torch.testing.assert_close(model(idx), plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(4):
        optimizer.zero_grad()
        model.loss(idx, idx.roll(-1, 1)).total.backward()
        optimizer.step()

    assert [name for name, p in model.named_parameters() if not p.grad.abs().max() > 0] == []


def test_an_untied_head_starts_at_zero():
    """At first every id is as likely as any other, and the embeddings are drawn all the same."""
    model = strawberry.build(
        tiny(BLOCK, parametrization={"zero_outputs": True}, tie_embeddings=False)
    )
    logits = model(torch.arange(8)[None])

    assert not logits.any()
    assert model.embedding.weight.std() > 0.1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("retained", "need a nonzero deviation; attention.out starts at zero"),
        ({"use": "factorized", "init": "original"}, "attention.out can't start at zero"),
    ],
    ids=["retained", "factorized"],
)
def test_sources_that_cannot_are_refused(weights, message):
    """A source that divides by a matrix's deviation, or ignores it, says that it can't."""
    with pytest.raises(RecipeError, match=message):
        built(weights)
