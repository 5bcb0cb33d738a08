"""AFT-simple where a naive form overflows, vanishes or leaks."""

import pytest
import torch

from strawberry.components.attention.aft import BOUND, CHUNK, cumsum
from strawberry.components.attention.aft_simple import running_mean


def oracle(k, v):
    """The same mean by an exact softmax over the past, in float64."""
    k, v = k.double(), v.double()
    rows = [(torch.softmax(k[:, : t + 1], dim=1) * v[:, : t + 1]).sum(1) for t in range(k.shape[1])]
    return torch.stack(rows, dim=1)


KEYS = {
    "normal": torch.randn,
    "ramp up": lambda shape: torch.linspace(-90, 90, shape[1])[None, :, None].expand(shape).clone(),
    "ramp down": lambda shape: -KEYS["ramp up"](shape),
    "wide": lambda shape: torch.randn(shape) * 90,
    "all low": lambda shape: torch.full(shape, -90.0),
}


@pytest.mark.parametrize("keys", KEYS)
def test_extreme_keys(keys):
    """Keys of +-90 and beyond neither overflow nor vanish: output and gradients are exact."""
    torch.manual_seed(0)
    shape = (2, 33, 5)
    k = KEYS[keys](shape).requires_grad_()
    v = torch.randn(shape, requires_grad=True)
    g = torch.randn(shape)

    y = running_mean(k, v)
    grads = torch.autograd.grad(y, (k, v), g)
    expected = oracle(k, v)
    expected_grads = torch.autograd.grad(expected, (k, v), g.double())

    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-5)


def test_a_large_future_key_changes_nothing_before_it():
    """Raising the last key by 200 leaves every earlier output bit for bit as it was."""
    torch.manual_seed(0)
    k, v = torch.randn(1, 20, 4), torch.randn(1, 20, 4)
    before = running_mean(k, v)
    k[:, -1] += 200

    assert torch.equal(running_mean(k, v)[:, :-1], before[:, :-1])


def test_gradcheck():
    """The hand-written backward is the derivative, in float64."""
    torch.manual_seed(0)
    k = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(running_mean, (k, v))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, CHUNK, CHUNK + 1, 5 * CHUNK, CHUNK**2 + 3])
def test_sums_by_products_are_torchs_sums(length, reverse):
    """Chunked sums are exact where terms differ by 300 orders of magnitude, and differentiable."""
    torch.manual_seed(0)
    x = (torch.randn(2, length, 3, dtype=torch.float64) * 150).exp().requires_grad_()
    expected = x.flip(1).cumsum(1).flip(1) if reverse else x.cumsum(1)
    found = cumsum(x, reverse=reverse)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    g = torch.rand_like(x)
    grads = [torch.autograd.grad(y, x, g)[0] for y in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-13, atol=0)


def test_the_operator_is_well_formed():
    """Its fake form has the shape and strides of the real one, and it compiles."""
    x = torch.randn(2, 37, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.strawberry.chunked_cumsum, (x, True))


def test_bounded_keys_in_float32():
    """Keys as large as a QK-norm lets them be give the means of float64, and its gradients."""
    torch.manual_seed(0)
    shape = (2, 70, 5)
    for keys in (
        torch.randn(shape) * 8,
        torch.linspace(-BOUND, BOUND, 70)[None, :, None] + 0 * torch.randn(shape),
    ):
        k, v = keys.clone().requires_grad_(), torch.randn(shape, requires_grad=True)
        y = running_mean(k, v, bounded=True)
        expected = oracle(k, v)
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
        g = torch.randn(shape)
        grads = torch.autograd.grad(y, (k, v), g)
        expected_grads = torch.autograd.grad(expected, (k, v), g.double())
        torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-4)
