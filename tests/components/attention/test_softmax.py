"""Causal softmax attention with anything done to its scores, against loops over queries."""

import itertools
import warnings

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from strawberry.components.attention import flex
from strawberry.components.attention.scores import Scores
from strawberry.components.attention.softmax import attend, extend_kv, new_kv
from strawberry.contracts import PositionalSite, Use
from strawberry.plugin import Plugins

B, H, G, D = 2, 4, 2, 16
CHANGES = list(itertools.product([None, 1, 3, 5], [False, True], [False, True], [False, True]))


def example(T, S, window, own, sink, bias, *, documents=False, dtype=torch.float64):
    torch.manual_seed(0)
    q = torch.randn(B, H, T, D, dtype=dtype)
    k, v = torch.randn(2, B, G, S, D, dtype=dtype)
    scores = Scores(
        bias=torch.randn(H, T, S, dtype=dtype) if bias else None,
        window=window,
        windows=torch.randint(1, (window or S) + 1, (B, H, T)) if own else None,
        documents=(torch.arange(T) // 4).expand(B, T) if documents else None,
        sink=torch.randn(H, dtype=dtype) if sink else None,
    )
    return q, k, v, scores


def sees(scores, b, h, t, distance):
    """Whether query t sees the key that many tokens back."""
    return (
        (scores.window is None or distance < scores.window)
        and (scores.windows is None or distance < scores.windows[b, h, t])
        and (
            scores.documents is None or scores.documents[b, t] == scores.documents[b, t - distance]
        )
    )


def by_loops(q, k, v, scores):
    T, S = q.shape[2], k.shape[2]
    y = torch.zeros_like(q)
    for b, h, t in itertools.product(range(B), range(H), range(T)):
        g, place = h // (H // G), S - T + t
        total, weight = 0, 0 if scores.sink is None else torch.exp(scores.sink[h])
        for j in range(place + 1):
            if sees(scores, b, h, t, place - j):
                score = q[b, h, t] @ k[b, g, j] / D**0.5
                if scores.bias is not None:
                    score = score + scores.bias[h, t, j]
                total, weight = total + score.exp() * v[b, g, j], weight + score.exp()
        y[b, h, t] = total / weight
    return y


@pytest.mark.parametrize(("T", "S"), [(11, 11), (7, 11), (1, 11), (11, 13)])
@pytest.mark.parametrize(("window", "own", "sink", "bias"), CHANGES)
def test_attend(T, S, window, own, sink, bias):
    """Every change of the scores, with and without earlier keys, in whichever form it takes."""
    arguments = example(T, S, window, own, sink, bias)

    torch.testing.assert_close(attend(*arguments), by_loops(*arguments))


@pytest.mark.parametrize(("window", "own", "sink", "bias"), CHANGES)
def test_attend_within_documents(window, own, sink, bias):
    """The same where tokens see their own document alone."""
    arguments = example(11, 11, window, own, sink, bias, documents=True)

    torch.testing.assert_close(attend(*arguments), by_loops(*arguments))


WINDOWS = [None, 1, 3, 5]
FLEX = [
    pytest.param(
        *changes,
        marks=pytest.mark.slow if (WINDOWS.index(changes[0]) + sum(changes[1:])) % 2 else (),
    )
    for changes in itertools.product(WINDOWS, *[[False, True]] * 4)
]
"""Half of all combinations, in which any four changes meet in every way; the others are slow."""


@pytest.mark.parametrize(("window", "own", "sink", "bias", "documents"), FLEX)
def test_flex_attention_agrees(window, own, sink, bias, documents):
    """The form for CUDA, run by torch's reference of it: the values of the portable form.

    Its kernels have no backward pass here, and gradients are torch's own affair.
    """
    arguments = example(24, 24, window, own, sink, bias, documents=documents, dtype=torch.float32)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        actual = flex.attend(*arguments, kernel=flex_attention)

    torch.testing.assert_close(actual, attend(*arguments), rtol=1e-5, atol=1e-5)


def test_flex_attention_is_for_cuda():
    """It is not taken where it can't train: on a CPU."""
    assert not flex.available(torch.zeros(1, 1, 4, 16), 0.0)


def test_gradients_in_blocks_and_with_a_mask():
    """A window's blocks have the gradients of the same attention with a written-out mask."""
    q, k, v, scores = example(11, 11, 3, own=False, sink=True, bias=False)
    masked = Scores(bias=torch.zeros(H, 11, 11).double(), window=3, sink=scores.sink)
    grads = []
    for one in (scores, masked):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        grads.append(torch.autograd.grad(attend(*inputs, one).square().sum(), inputs))

    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("split", [[9], [1] * 9, [2, 5, 1, 1], [6, 3]], ids=str)
def test_ring_cache(split):
    """A ring of `window` keys gives each call what its queries may see, and nothing older."""
    positional = Plugins.load().registry.find("positional", "none").load()(PositionalSite(8, 16))
    state = new_kv(1, 1, 100, 1, torch.device("cpu"), torch.float32, window=4)
    keys = torch.arange(9.0).view(1, 1, 9, 1)
    offset = 0

    for piece in keys.split(split, dim=2):
        T = piece.shape[2]
        use = Use(torch.arange(offset, offset + T), offset, positional, None, state=state)
        k, v = extend_kv(piece, -piece, use, window=4)
        offset += T

        assert k.flatten().tolist() == list(range(max(0, offset - T - 3), offset))
        assert torch.equal(v, -k)
    assert state["k"].shape == (1, 1, 4, 1)


def test_windowed_work_grows_with_the_window():
    """A short window's attention is computed in blocks: its FLOPs don't grow with T squared."""
    from torch.utils.flop_counter import FlopCounterMode

    flops = []
    for T in (64, 128):
        q = torch.zeros(1, 1, T, 16, device="meta")
        with FlopCounterMode(display=False) as counter:
            attend(q, q, q, Scores(window=8))
        flops.append(counter.get_total_flops())

    assert flops == [4 * 16 * 16 * T for T in (64, 128)]
