import pytest
import torch
from torch.nn import functional as F

import strawberry
from strawberry.model import loss as loss_module
from strawberry.model.loss import LossTerms, head_logits, head_loss, linear_cross_entropy
from tests.support import TINY, recipe_of


def example(dtype=torch.float64, tokens=37, width=12, vocabulary=50):
    torch.manual_seed(0)
    h = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,))
    targets[::5] = -1
    return h, weight, targets


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("rows", [16, 1000])
def test_equals_torch_on_kept_logits(monkeypatch, softcap, rows):
    """Loss and both gradients are those of torch's cross-entropy over all logits at once."""
    monkeypatch.setitem(loss_module.CHUNK_BYTES, "cpu", rows * 4 * 50)
    h, weight, targets = example()
    expected = F.cross_entropy(head_logits(h, weight, softcap), targets, ignore_index=-1)
    expected_grads = torch.autograd.grad(expected, (h, weight))

    actual = linear_cross_entropy(h, weight, targets, softcap)
    grads = torch.autograd.grad(actual, (h, weight))

    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(grads, expected_grads)


def test_bfloat16_loss_is_close_to_exact():
    """In bfloat16 the loss is off by rounding of the inputs only, not by its accumulation."""
    h, weight, targets = example(torch.bfloat16, tokens=400)
    exact = F.cross_entropy(h.double() @ weight.double().T, targets, ignore_index=-1)

    actual = linear_cross_entropy(h, weight, targets)

    assert actual.dtype == torch.float32
    assert abs(actual.item() - exact.item()) < 0.01


def test_all_ignored_is_zero_and_finite():
    """A batch without a single target has loss 0 and gradient 0, not NaN."""
    h, weight, targets = example()
    result = linear_cross_entropy(h, weight, torch.full_like(targets, -1))
    result.backward()

    assert result.item() == 0
    assert not h.grad.any()


def test_scaled_backward_scales_gradients():
    """Gradients follow what is done to the loss afterwards, as in gradient accumulation."""
    h, weight, targets = example()
    (one,) = torch.autograd.grad(linear_cross_entropy(h, weight, targets), weight)
    (quarter,) = torch.autograd.grad(linear_cross_entropy(h, weight, targets) / 4, weight)

    torch.testing.assert_close(quarter, one / 4)


def test_no_gradient_is_computed_without_grad_mode():
    """Evaluation pays for the forward pass alone."""
    from torch.utils.flop_counter import FlopCounterMode

    h, weight, targets = example()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear_cross_entropy(h, weight, targets)

    assert counter.get_total_flops() == 2 * h.shape[0] * weight.numel()


def test_autocast_uses_its_dtype(monkeypatch):
    """Under autocast the head's matmuls run in the autocast dtype; loss and sums stay float32."""
    monkeypatch.setitem(loss_module.CHUNK_BYTES, "cpu", 16 * 4 * 50)
    h, weight, targets = example(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = linear_cross_entropy(h, weight, targets)
    result.backward()

    assert result.dtype == torch.float32
    assert weight.grad.dtype == torch.float32
    assert not torch.equal(weight.grad, weight.grad.bfloat16().float())


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize(("z_loss", "smoothing"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_z_loss_and_label_smoothing(monkeypatch, softcap, z_loss, smoothing):
    """Both terms and their gradients are those of torch over all logits at once."""
    monkeypatch.setitem(loss_module.CHUNK_BYTES, "cpu", 16 * 4 * 50)
    h, weight, targets = example()
    logits = head_logits(h, weight, softcap)
    plain = F.cross_entropy(logits, targets, ignore_index=-1)
    smooth = F.cross_entropy(logits, targets, ignore_index=-1, label_smoothing=smoothing)
    z = logits[targets >= 0].logsumexp(-1).square().mean()
    expected = smooth + z_loss * z
    expected_grads = torch.autograd.grad(expected, (h, weight))

    actual = head_loss(h, weight, targets, softcap, LossTerms(z_loss, smoothing))
    grads = torch.autograd.grad(actual.total, (h, weight))

    torch.testing.assert_close(actual.total, expected)
    torch.testing.assert_close(actual.cross_entropy, plain)
    torch.testing.assert_close(actual.z, z)
    torch.testing.assert_close(grads, expected_grads)
    assert not actual.cross_entropy.requires_grad


def test_terms_count_in_training_alone():
    """A model's training loss has z-loss and smoothing; its evaluation loss is cross-entropy."""
    entry = {"attention": "mha"}
    recipe = recipe_of(
        {**TINY, "stack": [entry]}, objective={"z_loss": 0.5, "label_smoothing": 0.1}
    )
    model = strawberry.build(recipe)
    idx = torch.arange(12).view(2, 6)

    training, evaluation = model.train().loss(idx, idx), model.eval().loss(idx, idx)

    assert training.total > training.cross_entropy + 0.1
    assert "logit_z" in training.metrics
    assert evaluation.total.item() == evaluation.cross_entropy.item()
    torch.testing.assert_close(evaluation.cross_entropy, training.cross_entropy)
