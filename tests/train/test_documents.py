"""Documents that are kept apart, from the recipe to the run."""

import pytest
import torch

import strawberry
from strawberry.errors import RecipeError
from strawberry.train import load_run
from strawberry.train.documents import separator
from tests.support import TINY, recipe_of

MODEL = {**TINY, "vocab_size": 300, "stack": [{"attention": "mha"}]}
TRAIN = {"max_iters": 2, "batch_size": 2, "eval_iters": 1, "document_mask": True}


def recipe(**train):
    data = {"use": "stdlib", "max_bytes": 20000}
    return recipe_of(MODEL, data=data, tokenizer="bytes", train={**TRAIN, **train})


def test_a_run_keeps_documents_apart(tmp_path):
    """Training, evaluation and a prompt of several documents all see one document alone."""
    strawberry.train(recipe(), tmp_path / "run")
    loaded = load_run(tmp_path / "run")
    tokenizer = loaded.tokenizer()
    (end,) = [s for s, i in tokenizer.special_tokens.items() if i == tokenizer.eot]

    texts = [
        strawberry.generate(loaded, prompt, max_new_tokens=5, temperature=0)
        for prompt in ("def f(", f"something else{end}def f(")
    ]

    assert texts[0] == texts[1]


def test_the_loss_is_that_of_the_documents_by_themselves():
    """Two documents in a window have the loss of each in a window of its own."""
    model = strawberry.build(recipe()).eval()
    model.separator = 7
    first, second = torch.tensor([[7, 20, 21, 22]]), torch.tensor([[7, 30, 31, 32]])
    together = model.loss(torch.cat([first, second], 1), torch.cat([first + 1, second + 1], 1))
    apart = [model.loss(one, one + 1).cross_entropy for one in (first, second)]

    torch.testing.assert_close(together.cross_entropy, torch.stack(apart).mean())


def test_a_mixer_that_cannot_is_refused():
    """At build, at the mixer's line."""
    model = {**MODEL, "stack": [{"attention": "aft_simple"}]}
    with pytest.raises(RecipeError, match="'aft_simple' can't keep documents apart"):
        strawberry.build(recipe_of(model, train=TRAIN))


def test_data_without_a_tokenizer_is_refused():
    """Ids alone don't say where documents begin."""

    class Ids:
        tokenizer = None

    assert separator(recipe(document_mask=False), Ids()) is None
    with pytest.raises(RecipeError, match="no tokenizer"):
        separator(recipe(), Ids())
