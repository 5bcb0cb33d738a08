"""Root mean square on a CPU, dynamic tanh, and no norm at all."""

import math

import pytest
import torch
from torch.nn import functional as F

import strawberry
from strawberry.components.norm.dyt import DyT
from strawberry.components.norm.rmsnorm import rms_norm
from strawberry.contracts import NormSite
from tests.support import tiny


@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_rms_norm_is_torchs_own(gain, turned):
    """Values and gradients, of rows side by side and of a view that is turned; nothing kept."""
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    x = (x.transpose(0, 1) if turned else x).requires_grad_()
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True) if gain else None
    inputs = [x] if weight is None else [x, weight]
    ours, theirs = rms_norm(x, weight, 1e-2), F.rms_norm(x, (8,), weight, 1e-2)
    grad = torch.randn_like(ours)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad)
    )
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x, weight, 1e-2), theirs)
    assert torch.autograd.gradcheck(lambda *given: rms_norm(given[0], weight, 1e-2), [x])


def test_rms_norm_does_not_pretend_to_a_second_derivative():
    """Its way back is one kernel: a gradient of a gradient is refused, not wrong."""
    x = torch.randn(2, 4, requires_grad=True)
    (first,) = torch.autograd.grad(rms_norm(x, None, 1e-6).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        first.sum().backward()


@pytest.mark.parametrize("bias", [True, False])
def test_dyt(bias):
    """`gain * tanh(alpha x) + bias`, number by number."""
    norm = DyT(NormSite(3), alpha=0.7, bias=bias)
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
