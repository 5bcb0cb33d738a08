"""Low-rank differences between recursion steps."""

import pickle

import pytest
import torch

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from tests.support import tiny

T, R = 7, 3
BLOCK = {"attention": "mha", "ffn": "moe"}


def model_of(**fields):
    recur = {"recur": R, "weights": {"use": "step_lora", **fields}, **BLOCK}
    return strawberry.build(tiny(recur, positional="rope", bias=True)).double().eval()


def moved(model):
    """The same model with differences."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".up." in name and "deltas" in name:
                parameter.normal_(0, 0.3)
    return model


def at(model, step):
    visit = model.visits()[0]
    return Use(torch.arange(T), 0, model.positional, visit.weights, (step,)), visit.block


@pytest.mark.parametrize("step", range(R + 2))
def test_the_equation(step):
    """Each step has W + (alpha / rank) B A of its own; beyond the last step the last pair."""
    model = moved(model_of(rank=2, alpha=3.0))
    use, block = at(model, step)
    last = min(step, R - 1)
    qkv, bank = block.attention.qkv, block.ffn.up
    want = qkv.base.weight + 1.5 * qkv.deltas.up[last] @ qkv.deltas.down[last]
    x = torch.randn(2, T, 16, dtype=torch.float64)

    torch.testing.assert_close(qkv.matrix(use), want)
    torch.testing.assert_close(qkv(x, use), x @ want.T + qkv.base.bias)
    for expert in range(bank.experts):
        up, down = bank.deltas.up[last][expert], bank.deltas.down[last][expert]
        want = bank.base.weight[expert] + 1.5 * up @ down
        torch.testing.assert_close(bank.matrices(use)[expert], want)


def test_starts_as_the_nested_source():
    """At the start it is its nested source alone; differences change every step."""
    model = model_of()
    recur = {"recur": R, "weights": "owned", **BLOCK}
    owned = strawberry.build(tiny(recur, positional="rope", bias=True)).double().eval()
    owned.load_state_dict(
        {
            name.replace(".base.", "."): value
            for name, value in model.state_dict().items()
            if "deltas" not in name
        }
    )
    idx = torch.randint(61, (2, T))
    assert torch.equal(model(idx), owned(idx))
    assert not torch.allclose(moved(model)(idx), owned(idx))


def test_rank_no_more_than_a_matrix_has():
    """A matrix with few rows has differences of its own rank at most."""
    model = model_of(rank=64)
    ranks = {d.shape[-2] for n, d in model.named_parameters() if ".down." in n and "deltas" in n}

    assert ranks == {16}


def test_can_be_pickled():
    """A model with a nested source goes to another process."""
    model = moved(model_of(of="retained"))
    idx = torch.randint(61, (2, T))

    assert torch.equal(pickle.loads(pickle.dumps(model))(idx), model(idx))


@pytest.mark.parametrize(
    ("recur", "message"),
    [
        ({"recur": 1, "weights": "step_lora"}, "needs at least 2 recursion steps"),
        ({"repeat": 2, "weights": "step_lora"}, "needs at least 2 recursion steps"),
        (
            {"recur": 2, "weights": {"use": "step_lora", "of": {"use": "factorized", "rank": 0}}},
            "must be positive",
        ),
    ],
)
def test_refused(recur, message):
    """One step, or a nested source that refuses, is one located problem."""
    with pytest.raises(RecipeError) as error:
        strawberry.build(tiny({**recur, **BLOCK}, positional="rope"))

    (problem,) = error.value.problems
    assert message in problem.message
    assert problem.location is not None
