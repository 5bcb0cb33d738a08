"""Loops: a recursion whose steps a component runs, of all tokens or of some."""

import math
import shutil

import pytest
import torch

import strawberry
from strawberry.components.loop.random_depth import RandomDepth, poisson_quantile
from strawberry.contracts import Loop, Use
from strawberry.errors import RecipeError
from strawberry.model.recursion import Recursion
from strawberry.plugin import Plugins
from strawberry.training import train
from tests.support import TINY, recipe_of, tiny
from tests.training.conftest import corpus, recipe_file

__all__ = ["corpus", "recipe_file"]

BLOCK = {"attention": {"use": "mha", "n_head": 2}, "ffn": "swiglu"}


class Some(Loop):
    """Runs the tokens of even ids, once."""

    tokens = "some"
    exact = False

    def forward(self, stream, use, inner):
        return inner.some(stream, use, use.tokens % 2 == 0)


class Renumbered(Some):
    """The same, which to the blocks are a sequence of their own."""

    tokens = "renumbered"


class Plain(Loop):
    """The usual recursion."""

    any_stream = True

    def forward(self, stream, use, inner):
        aux = ()
        for step in range(inner.steps):
            stream, more = inner(stream, use, step)
            aux += more
        return stream, aux


def looped(loop, steps=1, **model):
    """A model of one recursion, with this loop."""
    model = strawberry.build(tiny({"recur": steps, **BLOCK}, positional="rope", **model)).eval()
    (recursion,) = [m for m in model.modules() if isinstance(m, Recursion)]
    recursion.loop = loop
    return model


@pytest.mark.parametrize("loop", [Some(), Renumbered()])
def test_the_tokens_that_go_are_a_sequence_of_their_own(loop):
    """They run the block with their positions, or numbered anew; the others stay as they are."""
    model = looped(loop)
    idx = torch.tensor([[4, 3, 8, 8, 1, 6, 5]])
    going = [0, 2, 3, 5]
    positions = torch.tensor(going) if loop.tokens == "some" else torch.arange(4)
    x = model.embed(idx, model.use(idx))
    use = Use(positions, 0, model.positional, model.weights)
    expected = x.clone()
    expected[:, going] = model.visits()[0].block(x[:, going], use, 0)[0]

    torch.testing.assert_close(model.trunk(idx)[0], model.norm(expected))


@pytest.mark.parametrize("split", [[1] * 7, [3, 4]])
@pytest.mark.parametrize("loop", [Some(), Renumbered(), Plain()])
def test_cached_calls_agree(loop, split):
    """However the sequences, whose blocks read inputs and few of whose tokens go, are divided."""
    model = looped(loop, embedding="per_layer", block="per_layer").double()
    idx = torch.randint(61, (3, 7), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(3, 7)
    parts = [model(piece, cache) for piece in idx.split(split, 1)]

    torch.testing.assert_close(torch.cat(parts, 1), model(idx))


def test_a_loop_of_all_steps_is_the_recursion():
    """With a wide stream too, and at another depth than that of training."""
    plain, model = (looped(loop, 3, residual="attention") for loop in (None, Plain()))
    idx = torch.arange(7)[None]
    for steps in (3, 5):
        plain.set_steps(steps)
        model.set_steps(steps)
        torch.testing.assert_close(model(idx), plain(idx), rtol=0, atol=0)


def test_random_depth_draws_its_distribution():
    """The inverse of the Poisson distribution; the mean of a log-normal rate is the recipe's."""
    for number in range(6):
        below = sum(math.exp(-2.5) * 2.5**k / math.factorial(k) for k in range(number + 1))
        assert poisson_quantile(2.5, below - 1e-9, 99) == number
        assert poisson_quantile(2.5, below + 1e-9, 99) == number + 1
    assert poisson_quantile(2000, 0.5, 9999) == 2000  # where exp(-2000) is 0
    loop = RandomDepth.__new__(RandomDepth)
    loop.recur, loop.spread = 6, 0.5
    numbers = torch.rand(20_000, generator=torch.Generator().manual_seed(0)).tolist()
    inner = type("Inner", (), {"draw": lambda _: numbers.pop()})()
    steps = torch.tensor([loop._drawn(inner) for _ in range(10_000)]).double()
    assert steps.mean() == pytest.approx(7, abs=0.15)  # 1 + 6
    assert steps.var() == pytest.approx(6 + 36 * math.expm1(0.25), rel=0.1)


def test_random_depth_cuts_gradients():
    """What entered steps before the last ones gets no gradient through them."""
    recipe = {"use": "random_depth", "gradient_steps": 2}
    model = strawberry.build(tiny({"recur": 4, "loop": recipe, **BLOCK}))
    (recursion,) = [m for m in model.modules() if isinstance(m, Recursion)]
    seen = []
    recursion.loop._drawn = lambda _: 5
    recursion.loop.adapter.register_forward_hook(lambda *given: seen.append(given[2]))
    for_gradients = model(torch.arange(7)[None])
    for state in seen:
        state.retain_grad()
    for_gradients.sum().backward()

    assert [state.grad is not None for state in seen] == [False] * 3 + [True] * 2


def test_a_resumed_run_draws_the_same_depths(recipe_file, tmp_path):
    """Four steps are two and then two, bit for bit."""
    entry = {"recur": 3, "loop": {"use": "random_depth", "gradient_steps": 2}, **BLOCK}
    train_ = {"max_iters": 4, "eval_interval": 0, "checkpoint_interval": 2}
    recipe = strawberry.load_recipe(recipe_file(model={"stack": [entry]}, train=train_))
    whole = train(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    (last,) = (tmp_path / "half" / "checkpoints").glob("*4")
    shutil.rmtree(last)
    again = train(recipe, tmp_path / "half", resume=True)
    assert again.metrics["val_loss"] == whole.metrics["val_loss"]


@pytest.mark.parametrize(
    ("recur", "model", "message"),
    [
        ({"router": "token_choice"}, {}, "`loop` excludes `router`"),
        ({"keys": "first"}, {}, "`loop` excludes `router` and `keys: first`"),
        ({"sharing": "sequence"}, {}, "needs `sharing: cycle`"),
        ({}, {"residual": "attention"}, "can't run on the stream of"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(recur, model, message):
    """At build, in one located line."""
    with pytest.raises(RecipeError, match=message) as caught:
        strawberry.build(tiny({"recur": 3, "loop": "random_depth", **BLOCK, **recur}, **model))
    assert caught.value.problems[0].location is not None


def test_a_loop_of_some_tokens_needs_mixers_that_allow_it(tmp_path):
    """As a router does."""
    file = tmp_path / "even.py"
    file.write_text(
        "from strawberry.contracts import Loop\n"
        "from strawberry.plugin import hookimpl\n"
        "class Even(Loop):\n"
        "    tokens = 'some'\n"
        "    def forward(self, stream, use, inner):\n"
        "        return inner.some(stream, use, use.tokens % 2 == 0)\n"
        "@hookimpl\n"
        "def strawberry_register(registry):\n"
        "    registry.loop('even', Even)\n"
    )
    entry = {"recur": 2, "loop": "even", "attention": "aft_full"}
    model = {**TINY, "stack": [entry]}
    recipe = recipe_of(model, plugins=Plugins.load(files=[file], disabled=["all"]))
    with pytest.raises(RecipeError, match="a loop passes on only some tokens"):
        strawberry.build(recipe)
