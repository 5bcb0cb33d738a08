"""One set of matrices for all blocks of a scope."""

import torch

import strawberry
from strawberry.contracts import Use
from tests.support import tiny

C = 16
BLOCK = {"attention": "mha", "ffn": "moe"}


def model_of(stack, **model):
    return strawberry.build(tiny(stack, weights="shared", positional="rope", **model))


def test_one_parameter_for_a_name_and_shape():
    """All blocks give the same matrices, stacks and biases; other shapes have their own."""
    narrow = {"attention": "mha", "ffn": {"use": "mlp", "n_ffn": 8}}
    model = model_of({"repeat": 2, "stack": [BLOCK, BLOCK, narrow]}, bias=True)
    assert set(model.weights.matrices) == {
        "attention_qkv_48x16",
        "attention_out_16x16",
        "ffn_up_8x48x16",
        "ffn_down_8x16x24",
        "ffn_up_8x16",
        "ffn_down_16x8",
    }
    use = Use(torch.arange(3), 0, model.positional, model.weights)
    first, *others = [visit.block.attention for visit in model.visits()]
    for other in others:
        assert other.qkv.matrix(use) is first.qkv.matrix(use)
        assert other.qkv.matrix(use) is model.weights.matrices["attention_qkv_48x16"]
    assert model.weights.biases["attention_qkv_48x16"].shape == (48,)


def test_equals_owned_with_equal_matrices():
    """It gives what `owned` gives where every block has those matrices and biases."""
    model = model_of({"repeat": 3, "attention": "mha", "ffn": "mlp"}, bias=True).double().eval()
    owned = strawberry.build(
        tiny({"repeat": 3, "attention": "mha", "ffn": "mlp"}, positional="rope", bias=True)
    )
    with torch.no_grad():
        for parameter in model.weights.biases.parameters():
            parameter.normal_()
    given = model.state_dict()
    for name in owned.state_dict():
        if name.endswith((".weight", ".bias")) and name not in given:
            *_, kind, projection, which = name.split(".")
            source = model.weights.matrices if which == "weight" else model.weights.biases
            (found,) = [v for key, v in source.items() if key.startswith(f"{kind}_{projection}_")]
            given[name] = found.detach()
    given = {name: value for name, value in given.items() if not name.startswith("weights.")}
    owned.double().eval().load_state_dict(given)
    idx = torch.randint(61, (2, 9))

    torch.testing.assert_close(model(idx), owned(idx), rtol=1e-6, atol=1e-6)


def test_scopes_have_their_own():
    """A source that is opened again shares nothing with the one around it."""
    inner = {"repeat": 2, "weights": "shared", "attention": "mha"}
    model = model_of(inner)
    source = model.visits()[0].weights

    assert source is not model.weights
    assert len(source.matrices) == 2
    assert len(model.weights.matrices) == 0
