"""Positions that are added to scores: ALiBi and T5's buckets."""

import math

import pytest
import torch

import strawberry
from strawberry.components.positional.alibi import ALiBi, slopes
from strawberry.components.positional.t5_bias import T5Bias
from strawberry.contracts import PositionalSite
from strawberry.errors import RecipeError
from tests.support import tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize("n_head", [1, 2, 4, 8])
def test_alibi_slopes(n_head):
    """Powers of 2^(-8/H) for a power of two of heads."""
    expected = torch.tensor([2 ** (-8 * (h + 1) / n_head) for h in range(n_head)])
    torch.testing.assert_close(slopes(n_head, CPU), expected, rtol=1e-6, atol=0)


def test_alibi_slopes_of_other_numbers():
    """Those of the power below, then every second one of the power above."""
    assert torch.equal(slopes(6, CPU), torch.cat([slopes(4, CPU), slopes(8, CPU)[0:4:2]]))
    assert torch.equal(slopes(3, CPU), torch.cat([slopes(2, CPU), slopes(4, CPU)[:1]]))


def test_alibi():
    """The bias of head h is minus its slope times the distance."""
    bias = ALiBi(PositionalSite(16, 16)).bias(4, torch.tensor([7, 8]), torch.arange(9))
    for h in range(4):
        for row, t in enumerate((7, 8)):
            for s in range(t + 1):
                assert bias[h, row, s] == pytest.approx(-(2 ** (-2 * (h + 1))) * (t - s))


def by_hand(distance, buckets=8, longest=20):
    """The bucket of a distance, as the paper says it."""
    exact = buckets // 2
    if distance < exact:
        return max(0, distance)
    share = math.log(distance / exact) / math.log(longest / exact)
    return min(buckets - 1, exact + math.floor(share * (buckets - exact) + 1e-9))


def test_t5_buckets():
    """One for each near distance, then geometrically wider, the last for all that is far."""
    positional = T5Bias(PositionalSite(16, 16), buckets=8, max_distance=20)
    found = positional.bucket(torch.arange(-3, 60)).tolist()

    assert found == [by_hand(d) for d in range(-3, 60)]
    assert set(found) == set(range(8))


def test_t5_bias():
    """The number of a head for the bucket of the distance."""
    positional = T5Bias(PositionalSite(16, 16), n_head=3, buckets=8, max_distance=20)
    with torch.no_grad():
        positional.table.normal_()
    bias = positional.bias(3, torch.tensor([4, 30]), torch.arange(31))
    for h in range(3):
        for row, t in enumerate((4, 30)):
            for s in range(t + 1):
                assert bias[h, row, s] == positional.table[by_hand(t - s), h]


def test_a_window_sees_the_right_distances():
    """With a ring of keys the biases are those of the keys that are left."""
    entry = {"attention": {"use": "mha", "n_head": 4, "window": 3}}
    model = strawberry.build(tiny(entry, positional="alibi")).eval()
    idx = torch.arange(12)[None]
    cache = model.new_cache(1, 12)
    pieces = [model(piece, cache=cache) for piece in idx.split([5, 1, 1, 4, 1], dim=1)]

    torch.testing.assert_close(torch.cat(pieces, 1), model(idx), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positional", ["alibi", "t5_bias"])
def test_mixers_without_scores_are_refused(positional):
    """What would be ignored is refused, in the model and in a block."""
    with pytest.raises(RecipeError, match="no attention of the stack uses"):
        strawberry.build(tiny({"attention": "aft_simple"}, positional=positional))
    block = {"attention": "aft_simple", "positional": positional}
    with pytest.raises(RecipeError, match="'aft_simple' would ignore"):
        strawberry.build(tiny(block))


def test_a_block_may_have_its_own():
    """A block's own position takes the place of the model's."""
    plain = tiny({"attention": "mha", "positional": "alibi"}, positional="rope")
    other = tiny({"attention": "mha"}, positional="alibi")
    idx = torch.arange(9)[None]

    torch.testing.assert_close(strawberry.build(plain)(idx), strawberry.build(other)(idx))


def test_t5_wants_its_number_of_heads():
    """Another number of heads is a mistake at the attention's line."""
    with pytest.raises(RecipeError, match="built for 4 heads, got 2"):
        strawberry.build(tiny({"attention": {"use": "mha", "n_head": 2}}, positional="t5_bias"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"buckets": 7}, "must be even"), ({"max_distance": 16}, "must exceed 15")],
)
def test_buckets_that_can_not_be(fields, message):
    """Half of an even number of buckets is exact; the others reach further."""
    with pytest.raises(RecipeError, match=message):
        strawberry.build(tiny({"attention": "mha"}, positional={"use": "t5_bias", **fields}))
