"""Documents that are kept apart, from the recipe to the run."""

import pytest
import torch

import strawberry
from strawberry.errors import RecipeError
from strawberry.generation import load_run
from strawberry.training.documents import separator
from tests.support import REGISTRY, TINY, recipe_of

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


@pytest.mark.parametrize("positional", [e.name for e in REGISTRY.entries("positional")])
@pytest.mark.parametrize(
    ("attention", "around"),
    [
        *(("mha", around) for around in ("plain", "recur", "same keys", "routed")),
        *((attention, "plain") for attention in ("moe_attention", "expert_abundance", "mla")),
    ],
)
def test_a_document_has_the_positions_that_it_has_alone(positional, attention, around):
    """Packed behind others, a document has the logits that it has by itself: to float noise.

    For every positional component, in recursions and behind a router too.
    """
    block = {"attention": attention, "ffn": "swiglu"}
    stack = {
        "plain": [block],
        "recur": [{"recur": 2, **block}],
        "same keys": [{"recur": 2, "keys": "first", **block}],
        "routed": [{"recur": 2, "router": "token_choice", **block}],
    }[around]
    made = recipe_of({**TINY, "positional": positional, "stack": stack}, train=TRAIN)
    try:
        model = strawberry.build(made).eval()
    except RecipeError:
        pytest.skip("these two don't go together")
    model.separator = 7
    documents = [torch.tensor([[7, *range(20, 20 + n)]]) for n in (3, 5, 4)]
    packed = model(torch.cat(documents, 1))
    alone = torch.cat([model(document) for document in documents], 1)

    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_a_mixer_that_cannot_is_refused():
    """At build, at the mixer's line."""
    model = {**MODEL, "stack": [{"attention": "aft_simple"}]}
    with pytest.raises(RecipeError, match="'aft_simple' can't separate documents"):
        strawberry.build(recipe_of(model, train=TRAIN))


def test_data_without_a_tokenizer_is_refused():
    """Ids alone don't say where documents begin."""

    class Ids:
        eot = None

    assert separator(recipe(document_mask=False), Ids()) is None
    with pytest.raises(RecipeError, match="no tokenizer"):
        separator(recipe(), Ids())
