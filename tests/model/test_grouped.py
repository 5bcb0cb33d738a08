"""Grouped matrix products against a loop over groups."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from strawberry.model.grouped import fits_kernel, grouped_linear, kernel_linear

ENDS = torch.tensor([3, 3, 7, 12])  # the second group is empty


def loop(x, bank, ends):
    """Each group's rows by its matrix."""
    starts = [0, *ends.tolist()[:-1]]
    return torch.cat(
        [x[a:b] @ w.T for a, b, w in zip(starts, ends.tolist(), bank, strict=True)], dim=0
    )


def operands(dtype, n_in=8, n_out=16):
    torch.manual_seed(4)
    x = torch.randn(12, n_in, dtype=dtype, requires_grad=True)
    bank = torch.randn(4, n_out, n_in, dtype=dtype, requires_grad=True)
    return x, bank


def with_gradients(function, x, bank):
    """The result, and the gradients of a weighted sum of it."""
    y = function(x, bank, ENDS)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return y, *torch.autograd.grad((y * weight).sum(), (x, bank))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8, 16), (5, 7)])
def test_equals_a_loop(dtype, shape):
    """Result and both gradients are those of a plain loop, at odd widths and with empty groups."""
    x, bank = operands(dtype, *shape)
    expected, actual = (with_gradients(f, x, bank) for f in (loop, grouped_linear))

    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert not actual[2][1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_agrees(dtype):
    """Torch's kernel, as it is called on CUDA, gives the same."""
    x, bank = operands(dtype)
    expected, actual = (with_gradients(f, x, bank) for f in (loop, kernel_linear))

    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_what_the_kernel_takes():
    """Bfloat16 with both widths in multiples of 8."""
    assert fits_kernel(torch.bfloat16, torch.Size((4, 16, 8)))
    assert not fits_kernel(torch.float32, torch.Size((4, 16, 8)))
    assert not fits_kernel(torch.bfloat16, torch.Size((4, 12, 8)))
    assert not fits_kernel(torch.bfloat16, torch.Size((4, 16, 4)))


def test_is_a_proper_operator():
    """Torch's own checks of schema, meta kernel and derivative pass."""
    torch.library.opcheck(torch.ops.strawberry.grouped_rows, (*operands(torch.float32), ENDS))


def test_casts_under_autocast():
    """As a linear layer does."""
    with torch.autocast("cpu", torch.bfloat16):
        assert grouped_linear(*operands(torch.float32), ENDS).dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops(device):
    """Forward: two a multiply-add of every row; backward: twice that."""
    x, bank = (t.detach().to(device).requires_grad_() for t in operands(torch.float32))
    with FlopCounterMode(display=False) as counter:
        y = grouped_linear(x, bank, ENDS.to(device))
        forward = counter.get_total_flops()
        y.backward(torch.ones_like(y))

    assert forward == 2 * 12 * 8 * 16
    assert counter.get_total_flops() == 3 * forward


def test_flops_of_the_kernel():
    """Torch's own counter passes over its kernel; ours does not."""
    x, bank = operands(torch.float32)
    with FlopCounterMode(display=False) as counter:
        y = kernel_linear(x, bank, ENDS)
        y.backward(torch.ones_like(y))

    assert counter.get_total_flops() == 3 * 2 * 12 * 8 * 16
