"""Every weight source, router, sharing of keys and mixer together, unless refused at its place."""

import itertools

import pytest
import torch

import strawberry
from strawberry.errors import RecipeError
from strawberry.model.risks import is_causal
from tests.support import REGISTRY, tiny

SOURCES = [entry.name for entry in REGISTRY.entries("weights")]
ROUTERS = [None, *(entry.name for entry in REGISTRY.entries("router"))]
MIXERS = [entry.name for entry in REGISTRY.entries("attention")]
T = 8


def build(source, router, keys, mixer):
    """A model whose block recurs three times, or None if it is refused with a place."""
    honours = REGISTRY.find("attention", mixer).load().honours
    block = {"attention": mixer, "ffn": "swiglu"}
    recur = {"recur": 3, "keys": keys, "weights": source, "stack": [block]}
    if router is not None:
        recur["router"] = router
    positional = "rope" if "rotary" in honours else "none"
    problems = []
    try:
        return strawberry.build(tiny(recur, positional=positional)).double().eval()
    except RecipeError as error:
        problems += error.problems
    assert all(problem.location is not None for problem in problems)
    return None


@torch.no_grad()
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mixer", MIXERS)
def test_together(source, mixer):
    """Causal, and the same with a cache as without; what says that it looks ahead does."""
    torch.manual_seed(0)
    idx = torch.randint(61, (2, T))
    works = 0
    for router, keys in itertools.product(ROUTERS, ("own", "first")):
        model = build(source, router, keys, mixer)
        if model is None:
            continue
        works += 1
        case = f"{source}, {router}, {keys}, {mixer}"
        whole = model(idx)
        changed = idx.clone()
        changed[:, 4:] = (changed[:, 4:] + 1) % 61
        moved = (model(changed) - whole)[:, :4].abs().max() / whole.abs().max()

        assert (moved < 1e-6) == is_causal(model), case
        if is_causal(model):
            cache = model.new_cache(2, T)
            pieces = [model(piece, cache=cache) for piece in idx.split([3, 1, 4], dim=1)]
            torch.testing.assert_close(
                torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-5, msg=lambda m, c=case: f"{c}: {m}"
            )
    assert works, f"every recursion of {mixer} over {source} weights is refused"
