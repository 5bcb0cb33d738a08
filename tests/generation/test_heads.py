"""Heads that draft: the text of plain greedy decoding, accepted tokens, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import strawberry
from strawberry.errors import StrawberryError
from strawberry.generation import Sampling, sample_ids
from strawberry.generation.heads import Drafted, speculate_by_heads
from tests.training.conftest import RecipeMaker

MHA: dict[str, Any] = {"attention": {"use": "mha", "n_head": 2}, "ffn": {"use": "mlp"}}
FORMS = ({"tokens": 4}, {"tokens": 3, "form": "chained"})


def model_of(make_recipe: RecipeMaker, **objective: Any) -> Any:
    whole = {"use": "multi_token", **objective}
    return strawberry.build(make_recipe(model={"stack": [MHA, MHA]}, objective=whole)).eval()


@pytest.mark.parametrize("form", FORMS, ids=["parallel", "chained"])
@pytest.mark.parametrize("count", [1, 2, 25])
def test_the_text_is_that_of_greedy_decoding(
    make_recipe: RecipeMaker, form: dict[str, Any], count: int
) -> None:
    """Whatever the heads get wrong, and at the end of the text."""
    model, told = model_of(make_recipe, **form), Drafted()
    prompt = torch.tensor([[5, 9, 3]])
    plain = [int(t) for t in sample_ids(model, prompt, count, Sampling(0.0), torch.Generator())]
    assert list(speculate_by_heads(model, prompt, count, told)) == plain
    assert told.passes + told.right == count


@pytest.mark.parametrize("form", FORMS, ids=["parallel", "chained"])
def test_heads_that_learned_spare_passes(make_recipe: RecipeMaker, form: dict[str, Any]) -> None:
    """On a text that repeats, which model and heads know, most guesses are right."""
    torch.manual_seed(0)
    model, told = model_of(make_recipe, **form), Drafted()
    ids = torch.arange(17)[None] % 5 + 60
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(40):
        model.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:]).total.backward()
        optimizer.step()
    text = list(speculate_by_heads(model.eval(), ids[:, :6], 8, told))
    assert text == ids[0, 6:14].tolist()
    assert told.right >= 3
    assert told.passes <= 5


def test_what_can_not_draft_is_refused(make_recipe: RecipeMaker) -> None:
    """Objectives without heads, mixers that can't take tokens back."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    plain = strawberry.build(make_recipe()).eval()
    with pytest.raises(StrawberryError, match="NextToken has no heads that draft"):
        next(speculate_by_heads(plain, ids, 1))
    block = {**MHA, "attention": "linear"}
    recipe = make_recipe(model={"stack": [block, MHA]}, objective="multi_token")
    with pytest.raises(StrawberryError, match="can't truncate its cache"):
        next(speculate_by_heads(strawberry.build(recipe).eval(), ids, 1))
