"""Dynamic tanh, and no norm at all."""

import math

import pytest
import torch

import strawberry
from strawberry.components.norm.dyt import DyT
from tests.support import tiny


@pytest.mark.parametrize("bias", [True, False])
def test_dyt(bias):
    """`gain * tanh(alpha x) + bias`, number by number."""
    norm = DyT(3, alpha=0.7, bias=bias)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        if bias:
            norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.randn(5, 3)
    for row, values in zip(norm(x).detach(), x, strict=True):
        for c in range(3):
            expected = (c + 1) * math.tanh(0.7 * values[c]) + (0.1 * (c + 1) if bias else 0)

            assert row[c] == pytest.approx(expected, abs=1e-6)


def test_none_hands_its_input_on():
    """`norm: none` is a component: in the model, in a block, and in QK-norm."""
    entry = {"attention": {"use": "mha", "qk_norm": True}, "norm": "none"}
    model = strawberry.build(tiny(entry, norm="none"))
    x = torch.randn(2, 16)

    assert model.norm(x) is x
    assert not [n for n, _ in model.named_parameters() if "norm" in n]


def test_a_norm_can_be_set_to_none_in_all_blocks():
    """An override reaches a block whose norm is `none`."""
    recipe = tiny({"attention": "mha", "norm": "none"})
    changed = strawberry.recipe.patch(recipe, ["model.stack.*.norm=layernorm"])

    assert changed.model.stack[0].norm.entry.name == "layernorm"
