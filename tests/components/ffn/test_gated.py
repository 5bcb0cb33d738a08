"""The gated networks against their equations, token by token in float64."""

import math

import pytest
import torch

import strawberry
from strawberry.contracts import Use
from tests.support import tiny

GATES = {
    "bilinear": lambda g: g,
    "geglu": lambda g: g * 0.5 * (1 + math.erf(g / math.sqrt(2))),
    "glu": lambda g: 1 / (1 + math.exp(-g)),
    "reglu": lambda g: max(g, 0.0),
    "swiglu": lambda g: g / (1 + math.exp(-g)),
}


@pytest.mark.parametrize("name", GATES)
def test_equation(name):
    """`W_out (u * act(g))`, where the first half of `W_in x` is u and the second g."""
    model = (
        strawberry.build(tiny({"ffn": {"use": name, "n_ffn": 10}})).double().requires_grad_(False)
    )
    ffn = model.visits()[0].block.ffn
    use = Use(torch.arange(5), 0, model.positional, model.weights)
    x = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = []
    for token in x[0]:
        up = [float(row @ token) for row in ffn.up.weight]
        hidden = [u * GATES[name](g) for u, g in zip(up[:10], up[10:], strict=True)]
        rows.append([float(row @ torch.tensor(hidden).double()) for row in ffn.down.weight])

    torch.testing.assert_close(ffn(x, use)[0], torch.tensor(rows).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", GATES)
def test_default_width(name):
    """The parameters of a plain network of four times the width, to a multiple of 8."""
    model = strawberry.build(tiny({"ffn": name}))

    assert model.visits()[0].block.ffn.down.in_features == 48
