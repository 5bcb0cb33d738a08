"""Rotary positions in all their forms, against scalar formulas."""

import math

import pytest
import torch

import strawberry
from strawberry.components.positional.rope import RoPE
from strawberry.contracts import PositionalSite, Use
from strawberry.errors import RecipeError
from tests.support import tiny

FORMS = [
    {},
    {"sign": -1},
    {"layout": "interleaved"},
    {"partial": 0.5},
    {"partial": 0.6, "layout": "interleaved"},
    {"scaling": "linear", "factor": 4.0},
    {"scaling": "ntk", "factor": 4.0},
    {"scaling": "yarn", "factor": 4.0, "original_length": 64},
]
D = 12


def rotate(rope, x, positions):
    return rope.rotate(x, Use(torch.as_tensor(positions), 0, rope, None))


def frequency(i, rotated, scaling=None, factor=1.0, length=64):
    """How far pair i turns for each position."""
    plain = 10000.0 ** (-2 * i / rotated)
    if scaling == "linear":
        return plain / factor
    if scaling == "ntk":
        return (10000.0 * factor ** (rotated / (rotated - 2))) ** (-2 * i / rotated)
    if scaling == "yarn":
        turns = length * plain / (2 * math.pi)
        keep = 0.0 if turns < 1 else 1.0 if turns > 32 else (turns - 1) / 31
        return (1 - keep) * plain / factor + keep * plain
    return plain


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_pair_turns(form):
    """Pair by pair, by position times frequency; what is not rotated stays as it is."""
    rope = RoPE(PositionalSite(16, 256), **form)
    x = torch.randn(1, 1, 3, D, dtype=torch.float64)
    positions = [0, 5, 1000]
    rotated = int(form.get("partial", 1.0) * D) // 2 * 2
    grow = 0.1 * math.log(4) + 1 if form.get("scaling") == "yarn" else 1.0
    expected = x.clone()
    for t, position in enumerate(positions):
        for i in range(rotated // 2):
            step = frequency(i, rotated, form.get("scaling"), form.get("factor", 1.0))
            angle = form.get("sign", 1) * position * step
            interleaved = form.get("layout") == "interleaved"
            a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + rotated // 2)
            cos, sin = grow * math.cos(angle), grow * math.sin(angle)
            expected[0, 0, t, a] = x[0, 0, t, a] * cos - x[0, 0, t, b] * sin
            expected[0, 0, t, b] = x[0, 0, t, b] * cos + x[0, 0, t, a] * sin

    torch.testing.assert_close(rotate(rope, x, positions), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_scores_depend_on_distance_alone(form):
    """Rotated queries and keys have the same product wherever they stand, near and far."""
    rope = RoPE(PositionalSite(16, 256), **form)
    q, k = torch.randn(2, 1, 1, 1, D, dtype=torch.float64)

    def score(i, j):
        return float((rotate(rope, q, [i]) * rotate(rope, k, [j])).sum())

    assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
    assert score(9, 4) == pytest.approx(score(1_000_009, 1_000_004), abs=1e-5)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_interleaved_is_half_with_other_rows():
    """The documented permutation of rows takes one layout to the other."""
    half, interleaved = (
        RoPE(PositionalSite(16, 256)),
        RoPE(PositionalSite(16, 256), layout="interleaved"),
    )
    x = torch.randn(1, 1, 4, D)
    order = [i // 2 + (D // 2) * (i % 2) for i in range(D)]  # row 2i is i, row 2i + 1 is i + D/2
    positions = [0, 3, 8, 100]

    torch.testing.assert_close(
        rotate(interleaved, x[..., order], positions), rotate(half, x, positions)[..., order]
    )


def test_linear_scaling_stays_inside_the_trained_angles():
    """Four times as long, stretched by four: no angle is larger than it was."""
    rope = RoPE(PositionalSite(16, 256), scaling="linear", factor=4.0)
    plain = RoPE(PositionalSite(16, 64))

    stretched, before = (r.frequencies(D, torch.device("cpu")) for r in (rope, plain))
    assert (255 * stretched <= 64 * before).all()


def test_original_length_follows_from_the_block():
    """Without one, the recipe's block size is the length after stretching."""
    assert RoPE(PositionalSite(16, 256), scaling="yarn", factor=4.0).original_length == 64


def test_positions_of_each_sequence():
    """Inside a routed recursion each sequence has positions of its own."""
    rope = RoPE(PositionalSite(16, 256))
    x = torch.randn(2, 3, 2, D)
    both = rotate(rope, x, [[0, 4], [2, 9]])

    torch.testing.assert_close(both[:1], rotate(rope, x[:1], [0, 4]))
    torch.testing.assert_close(both[1:], rotate(rope, x[1:], [2, 9]))


def test_beyond_the_block_size():
    """There is no longest sequence: a model runs past its training length, finite."""
    model = strawberry.build(tiny({"attention": "mha"}, positional="rope"))

    assert model(torch.zeros(1, 50, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize(
    ("positional", "attention", "message"),
    [
        ("rope", {"use": "mha", "n_qkv": 12}, "rope needs an even head width, got 3"),
        ({"use": "rope", "partial": 0.2}, {"use": "mha"}, "rope needs an even head width"),
        ({"use": "rope", "factor": 2.0}, {"use": "mha"}, "it needs a scaling"),
        ({"use": "rope", "beta_slow": 40.0}, {"use": "mha"}, "must be below beta_fast"),
        (
            {"use": "rope", "scaling": "ntk", "factor": 2.0, "partial": 0.5},
            {"use": "mha"},
            "at least two rotated pairs",
        ),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(positional, attention, message):
    """At build, at the line that says so."""
    with pytest.raises(RecipeError, match=message) as caught:
        strawberry.build(tiny({"attention": {"n_head": 4, **attention}}, positional=positional))
    assert caught.value.problems[0].location is not None


def test_a_cache_keeps_the_table(monkeypatch):
    """One table serves the calls with a cache, up to its end; beyond, each has its own."""
    monkeypatch.setattr("strawberry.components.positional.rope.SPAN", 8)
    model = strawberry.build(tiny({"attention": "mha"}, positional="rope")).eval()
    ids = torch.arange(14)[None]
    with torch.no_grad():
        whole = model(ids)
        cache = model.new_cache(1, 14)
        parts = [model(ids[:, a:b], cache) for a, b in ((0, 3), (3, 4), (4, 10), (10, 14))]
    (kept,) = cache.once.values()

    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    assert [len(table) for table in kept] == [8, 8]
