"""AFT-full, AFT-local and AFT-conv against the paper's equation as a loop in float64."""

import pytest
import torch

import strawberry
from strawberry.components.attention.aft import BIAS_LIMIT, BOUND
from strawberry.components.attention.aft_band import band_mean, band_state
from strawberry.components.attention.aft_full import _PairMean
from strawberry.contracts import Use
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.accounting import account
from tests.support import tiny

B, T, N = 2, 11, 8
FORMS = [
    {"use": "aft_full"},
    {"use": "aft_full", "rank": 3},
    {"use": "aft_local", "window": 4},
    {"use": "aft_local", "window": 4, "rank": 3},
    {"use": "aft_local", "window": 30},
    {"use": "aft_conv", "window": 4, "n_head": 2},
    {"use": "aft_conv", "window": 3, "n_head": 4, "k_channels": "full"},
    {"use": "aft_conv", "window": 30, "n_head": 2},
]


def built(form):
    """The mixer of a one-block model in float64, its tables drawn wide, and the model."""
    entry = {"attention": {"n_qkv": N, **form}}
    model = strawberry.build(tiny(entry)).double().eval()
    mixer = model.visits()[0].block.attention
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            if "weight" not in name:
                parameter.normal_()
    return model, mixer


def bias(mixer, form, t, s, channel):
    """w[t, s] of a channel."""
    if form["use"] == "aft_conv":
        if t - s >= mixer.window:
            return 0.0
        h = channel // (N // mixer.n_head)
        row = mixer.form[h]
        unit = (row - row.mean()) / (row.std(correction=0) + 1e-6)
        return mixer.gamma[h] * unit[t - s] + mixer.beta[h]
    if form["use"] == "aft_local" and t - s >= mixer.window:
        return 0.0
    if "rank" in form:
        return mixer.queries[t] @ mixer.keys[s]
    return mixer.biases[t, t - s] if form["use"] == "aft_local" else mixer.biases[t, s]


def by_loops(mixer, form, x):
    y = torch.zeros(B, T, N, dtype=torch.float64)
    for b in range(B):
        q, k, v = torch.split(x[b] @ mixer.qkv.weight.T, mixer.widths, dim=1)
        k = k.repeat_interleave(N // k.shape[1], dim=1)
        for t in range(T):
            for c in range(N):
                shares = [torch.exp(k[s, c] + bias(mixer, form, t, s, c)) for s in range(t + 1)]
                total = sum(share * v[s, c] for s, share in enumerate(shares))
                y[b, t, c] = torch.sigmoid(q[t, c]) * total / sum(shares)
    return y @ mixer.head.out.weight.T


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_equation(form):
    """Every query's mean under exp(key + bias), channel by channel, and all of its gradients."""
    model, mixer = built(form)
    x = torch.randn(B, T, 16, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(B, T, 16, dtype=torch.float64)
    inputs = [x, *mixer.parameters()]
    use = Use(torch.arange(T), 0, model.positional, model.weights)
    expected, actual = by_loops(mixer, form, x), mixer(x, use)

    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad((actual * direction).sum(), inputs),
        torch.autograd.grad((expected * direction).sum(), inputs),
        rtol=1e-8,
        atol=1e-9,
    )


@pytest.mark.parametrize("shape", ["local", "conv", "full"])
def test_keys_of_ninety(shape):
    """Keys of +-90 neither overflow nor let a later key disturb what came before it."""
    torch.manual_seed(0)
    k = torch.randn(1, 40, 4).sign() * 90
    v = torch.randn(1, 40, 4)
    w = {"local": torch.randn(5, 40, 1), "conv": torch.randn(5, 1, 4), "full": torch.randn(40, 40)}

    def mean(k):
        if shape == "full":
            return _PairMean.apply(k, v, w[shape], None, 0.0)
        return band_mean(k, v, w[shape], None, 0.0)

    k = k.requires_grad_()
    y = mean(k)
    (grad,) = torch.autograd.grad(y.sum(), k)
    changed = k.detach().clone()
    changed[:, -1] = 90

    assert y.isfinite().all()
    assert grad.isfinite().all()
    assert (y.abs() <= v.abs().max()).all()
    assert torch.equal(mean(changed)[:, :-1], y[:, :-1])


def test_the_window_does_not_cancel():
    """A huge near key with a tiny factor leaves the mean of the rest exact to rounding.

    The usual form adds all keys and takes (1 - factor) of the near ones away again, which here
    loses every digit.
    """
    k = torch.tensor([0.0, 0.0, 80.0]).view(1, 3, 1)
    v = torch.tensor([1.0, 3.0, 5.0]).view(1, 3, 1)
    w = torch.full((1, 1, 1), -20.0)
    exact = (4.0 + 5 * torch.tensor(60.0).double().exp()) / (
        2.0 + torch.tensor(60.0).double().exp()
    )

    assert band_mean(k, v, w, None, 0.0)[0, 2, 0].item() == pytest.approx(exact.item(), rel=1e-6)


@pytest.mark.parametrize("rank", [False, True])
def test_a_later_key_does_not_spoil_the_gradient(rank):
    """A key that is larger by more than exp can hold leaves the gradients of biases finite."""
    k = torch.tensor([-600.0, -590.0, 600.0]).view(1, 3, 1)
    v = torch.randn(1, 3, 1)
    left = torch.randn(3, 2 if rank else 3, requires_grad=True)
    right = torch.randn(3, 2, requires_grad=True) if rank else None
    _PairMean.apply(k, v, left, right, 0.0).sum().backward()

    assert left.grad.isfinite().all()
    assert right is None or right.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS[2:], ids=str)
def test_state_is_constant(form):
    """The decoding state of the local forms does not grow with the text."""
    model, _ = built(form)

    assert model.new_cache(1, 16).nbytes() == model.new_cache(1, 8).nbytes()


@pytest.mark.parametrize("split", [[T], [1] * T, [2, 7, 1, 1]], ids=str)
def test_band_state(split):
    """Any split of a sequence gives the parallel mean."""
    k, v = torch.randn(2, B, T, N)
    w = torch.randn(4, T, 1)
    zero = torch.zeros(B, N, dtype=torch.float64)
    state = band_state({"num": zero, "den": zero.clone()}, 4)
    pieces, start = [], 0
    for length in split:
        part = slice(start, start + length)
        pieces.append(band_mean(k[:, part], v[:, part], w[:, part], state, 0.0))
        start += length

    torch.testing.assert_close(torch.cat(pieces, 1), band_mean(k, v, w, None, 0.0))


@pytest.mark.parametrize("form", FORMS[:5:2], ids=str)
def test_positions_end_at_the_block_size(form):
    """Mixers with a bias for each position refuse longer sequences, in one line."""
    model, _ = built(form)
    with pytest.raises(StrawberryError, match="17 tokens exceed the 16"):
        model(torch.zeros(1, 17, dtype=torch.long))


def test_training_memory_is_linear():
    """Twice as many tokens keep twice as many bytes, not four times."""
    for form in (FORMS[0], FORMS[1], FORMS[2], FORMS[5]):
        bytes_of = []
        for length in (256, 512):
            entry = {"attention": {"n_qkv": N, **form}}
            report = account(tiny(entry, block_size=length))
            (part, _) = report.parts
            bytes_of.append(part.cost.saved_bytes)

        assert bytes_of[1] <= 2 * bytes_of[0]


def test_counted_flops():
    """Projections for all; for AFT-full also two products with the pairs, of N channels each."""
    length, C = 16, 16
    projections = length * (2 * C * 3 * N + 2 * N * C)
    pairs = 4 * length * length * N
    for form, mixing in (
        (FORMS[0], pairs),
        (FORMS[1], pairs + 2 * length * length * 3),
        (FORMS[2], 0),
        (FORMS[6], 0),
    ):
        report = account(tiny({"attention": {"n_qkv": N, **form}}))

        assert report.parts[0].cost.flops_forward == projections + mixing


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"use": "aft_conv", "n_head": 3}, "can't be split into 3 heads"),
        ({"use": "aft_full", "n_ffn": 8}, "a linear head has no hidden width"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(form, message):
    """At build, at the line that says so."""
    with pytest.raises(RecipeError, match=message):
        built(form)


def test_pairs_can_not_be_routed():
    """A mixer whose biases belong to pairs of positions is refused inside a routed recursion."""
    entry = {"recur": 2, "router": "token_choice", "attention": "aft_full"}
    with pytest.raises(RecipeError, match="AFTFull mixes whole sequences"):
        strawberry.build(tiny(entry))


@pytest.mark.parametrize("shape", [(4, T, 1), (4, 1, N)], ids=["by position", "by channel"])
def test_bounded_keys_are_summed_in_float32(shape):
    """At the ends of what keys and biases can be, sums and gradients are those of float64."""
    torch.manual_seed(5)
    k = torch.where(torch.rand(B, T, N) < 0.5, -BOUND, BOUND) * (0.9 + 0.1 * torch.rand(B, T, N))
    w = torch.where(torch.rand(shape) < 0.5, -BIAS_LIMIT, BIAS_LIMIT) * (
        0.9 + 0.1 * torch.rand(shape)
    )
    v, direction = torch.randn(B, T, N), torch.randn(B, T, N)
    found = []
    for dtype, bounded in ((torch.float32, True), (torch.float64, False)):
        inputs = [x.to(dtype).requires_grad_() for x in (k, v, w)]
        y = band_mean(*inputs, None, 0.0, bounded=bounded)
        found.append([y, *torch.autograd.grad((y * direction).sum(), inputs)])

    for ours, exact in zip(*found, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact.double(), rtol=1e-4, atol=1e-5)


def test_biases_at_the_start():
    """AFT-conv's biases have the mean and the deviation over offsets that the recipe names."""
    form = {"use": "aft_conv", "window": 5, "n_head": 4, "gamma": 1.5, "beta": 3.0}
    model = strawberry.build(tiny({"attention": {"n_qkv": N, **form}})).double()
    mixer = model.visits()[0].block.attention
    with torch.no_grad():
        biases = [[bias(mixer, form, t, 0, c) for t in range(5)] for c in range(N)]
    spread, mean = torch.std_mean(torch.tensor(biases), dim=1, correction=0)

    torch.testing.assert_close(mean, torch.full_like(mean, 3.0), rtol=1e-5, atol=0)
    torch.testing.assert_close(spread, torch.full_like(spread, 1.5), rtol=1e-5, atol=0)
