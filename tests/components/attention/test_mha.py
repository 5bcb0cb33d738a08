"""What multi-head attention can have beside its plain form, against loops in float64."""

import pytest
import torch

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from tests.support import tiny

B, T, C, H, D = 2, 9, 16, 4, 4


def built(**fields):
    """The mixer of a one-block model, its vectors and tables drawn at random, and the model."""
    entry = {"attention": {"use": "mha", "n_head": H, **fields}}
    model = strawberry.build(tiny(entry, positional="none")).double().eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "values" in name:
                parameter.uniform_(0.5, 1.5)
    return model, model.visits()[0].block.attention


def by_loops(mixer, x, tokens, window=None):
    y = torch.zeros(B, T, C, dtype=torch.float64)
    for b in range(B):
        rows = x[b] @ mixer.qkv.weight.T
        q, k, v = (part.view(T, H, D).clone() for part in rows.split(C, dim=1))
        for t in range(T):
            if mixer.values is not None:
                v[t] += mixer.values.weight[tokens[b, t]].view(H, D)
        mixed = torch.zeros(T, H, D, dtype=torch.float64)
        for h in range(H):
            for t in range(T):
                tau = 1.0 if mixer.temperature is None else mixer.temperature[h]
                weight = 0.0 if mixer.sink is None else torch.exp(mixer.sink[h])
                total = torch.zeros(D, dtype=torch.float64)
                for s in range(0 if window is None else max(0, t - window + 1), t + 1):
                    share = torch.exp(tau * (q[t, h] @ k[s, h]) / D**0.5)
                    total, weight = total + share * v[s, h], weight + share
                mixed[t, h] = total / weight
        if mixer.gate is not None:
            opening = torch.sigmoid(x[b] @ mixer.gate.weight.T)
            mixed *= opening.view(T, H, -1)  # one for each head, or one for each number
        y[b] = mixed.view(T, C) @ mixer.out.weight.T
    return y


@pytest.mark.parametrize(
    "fields",
    [
        {"window": 3},
        {"window": 6, "sink": True},
        {"sink": True},
        {"temperature": 1.2},
        {"gate": "elementwise"},
        {"gate": "headwise"},
        {"value_embedding": True},
        {"window": 3, "sink": True, "temperature": 2.0, "gate": "headwise"},
    ],
    ids=str,
)
def test_extras(fields):
    """Window, sink, temperature, gate and value embeddings, alone and together."""
    model, mixer = built(**fields)
    x = torch.randn(B, T, C, dtype=torch.float64)
    tokens = torch.randint(61, (B, T))
    use = Use(torch.arange(T), 0, model.positional, model.weights, tokens=tokens)

    expected = by_loops(mixer, x, tokens, fields.get("window"))

    torch.testing.assert_close(mixer(x, use), expected)


def test_extras_start_neutral():
    """A temperature of 1 and value embeddings change nothing at the start."""
    plain, _ = built()
    fields = {"temperature": 1.0, "value_embedding": True}
    more = strawberry.build(
        tiny({"attention": {"use": "mha", "n_head": H, **fields}}, positional="none")
    ).double()
    idx = torch.arange(T)[None]
    more.load_state_dict(plain.state_dict(), strict=False)

    torch.testing.assert_close(more(idx), plain(idx))


def test_window_cache_does_not_grow():
    """The cache of a window keeps as many tokens, however long the text."""
    model, _ = built(window=3)

    assert model.new_cache(1, 16).nbytes() == model.new_cache(1, 12).nbytes()
    assert model.new_cache(1, 2).nbytes() < model.new_cache(1, 3).nbytes()


def test_grouping_that_cannot_be_is_refused():
    """Heads that key-value heads don't divide are refused at their line."""
    with pytest.raises(RecipeError, match="can't share 3 key-value heads"):
        built(n_kv_head=3)
