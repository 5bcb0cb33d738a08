"""How what a part computes joins the stream."""

import pytest
import torch

import strawberry
from strawberry.components.residual.attention import EPS
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from tests.support import tiny

BLOCK = {"attention": "mha", "ffn": "swiglu"}


def block_by_hand(placement, scale):
    """The output of a block, and what it should be from its parts called one by one."""
    residual = {"placement": placement, "scale": scale}
    model = strawberry.build(tiny(BLOCK, {"attention": "mha"}, residual=residual)).eval()
    block = model.visits()[0].block
    use = Use(torch.arange(7), 0, model.positional, model.weights)
    x = torch.randn(2, 7, 16)
    factor = {"depth": 0.5, "learned": 1.0}.get(scale, scale)  # two blocks: 1 / sqrt(4)

    def rms(y):
        return y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-6)

    expected = x
    for part in (block.attention, block.ffn):
        y = part(expected if placement == "post" else rms(expected), use)
        y = rms(y) if placement == "sandwich" else y
        expected = expected + factor * y
        expected = rms(expected) if placement == "post" else expected
    return block(x, use, 0)[0], expected


@pytest.mark.parametrize("placement", ["pre", "post", "sandwich"])
@pytest.mark.parametrize("scale", [1.0, 0.3, "depth", "learned"])
def test_placement_and_scale(placement, scale):
    """Norms before, after or around each part, and the scale of what is added."""
    actual, expected = block_by_hand(placement, scale)

    torch.testing.assert_close(actual, expected)


def test_attention_residuals():
    """Each part reads a softmax-weighted mean of the embeddings and all outputs before it."""
    model = strawberry.build(tiny({"recur": 2, **BLOCK}, residual="attention")).double().eval()
    block = model.visits()[0].block
    torch.manual_seed(2)
    with torch.no_grad():
        for join in (block.attention_join, block.ffn_join):
            join.query.normal_()
    idx = torch.arange(9)[None]
    use = Use(torch.arange(9), 0, model.positional, model.weights)

    history = [model.embed(idx, model.use(idx))]
    x = history[0]
    for _ in range(2):
        for part, norm, join in (
            (block.attention, block.attention_norm, block.attention_join),
            (block.ffn, block.ffn_norm, block.ffn_join),
        ):
            history.append(part(norm(x), use))
            x = torch.zeros_like(x)
            for t in range(9):
                rows = [v[0, t] for v in history]
                scores = [join.query @ r / torch.sqrt(r.square().mean() + EPS) for r in rows]
                for share, row in zip(torch.stack(scores).softmax(0), rows, strict=True):
                    x[0, t] += share * row

    torch.testing.assert_close(model.trunk(idx)[0], model.norm(x), rtol=1e-6, atol=1e-6)


def test_attention_residuals_start_as_a_plain_mean():
    """With the queries at zero, every part reads the mean of what was written before it."""
    model = strawberry.build(tiny(BLOCK, residual="attention")).eval()
    block = model.visits()[0].block
    use = Use(torch.arange(5), 0, model.positional, model.weights)
    x = model.embed(torch.arange(5)[None], model.use(torch.arange(5)[None]))
    y = block.attention(block.attention_norm(x), use)
    z = block.ffn(block.ffn_norm((x + y) / 2), use)

    actual, _ = model.trunk(torch.arange(5)[None])

    torch.testing.assert_close(actual, model.norm((x + y + z) / 3))


def test_a_block_may_join_in_its_own_way():
    """Its parts join by its residual component; the others by the model's."""
    own = {"attention": "mha", "residual": {"use": "sum", "scale": 0.5}}
    model = strawberry.build(tiny({"attention": "mha"}, own))
    first, second = (visit.block.attention_join for visit in model.visits())
    assert (first.scale, second.scale) == (1.0, 0.5)
    with pytest.raises(RecipeError, match="'sum' can't join the stream of the model's"):
        strawberry.build(tiny({"attention": "mha"}, own, residual="attention"))
