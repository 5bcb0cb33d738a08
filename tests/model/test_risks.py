"""Which components look ahead, and under which names that is said."""

import pytest

import strawberry
from strawberry.model.risks import ahead, is_causal, noncausal, risks
from tests.support import TINY, recipe_of, tiny

AHEAD = {"attention": "mha", "ffn": {"use": "strawberry/moe", "routing": "expert"}}
CAUSAL = {"attention": "mha", "ffn": "moe"}


@pytest.mark.parametrize(
    "stack", [[AHEAD, AHEAD], [CAUSAL, {"repeat": 2, "stack": [{"recur": 2, **AHEAD}]}]]
)
def test_noncausal_components_are_named_once(stack):
    """However deep they stand and however often, by their short name."""
    recipe = tiny(*stack)
    model = strawberry.build(recipe, device="meta")
    (line,) = ahead(recipe, model)

    assert noncausal(recipe, model) == ["moe"]
    assert not is_causal(model)
    assert line in risks(recipe, model)
    assert line.startswith("moe: not causal")


def test_a_causal_model_has_none():
    """The same component in another mode is not meant."""
    recipe = tiny(CAUSAL)
    model = strawberry.build(recipe, device="meta")

    assert is_causal(model)
    assert ahead(recipe, model) == noncausal(recipe, model) == []


def test_a_high_rate_is_told_where_it_is_that_of_all():
    """A rate of AdamW over a hundredth, unless its parameters are named, and so meant."""
    high = {"use": "adamw", "lr": 0.05}
    model = {**TINY, "stack": [CAUSAL]}
    told = "a peak learning rate of 0.05 is high for adamw"

    for optimizer, expected in (high, True), ([{**high, "params": "vector"}, "adamw"], False):
        recipe = recipe_of(model, optimizer=optimizer)
        assert (told in risks(recipe, strawberry.build(recipe, device="meta"))) is expected
