"""Each built-in component against its equation, written out as a slow loop in float64."""

import math

import pytest
import torch

import strawberry
from strawberry.contracts import Use
from tests.support import tiny

B, T, C = 2, 11, 16


def block_of(entry, **model):
    """The only block of a model with this stack entry, in float64, with random gains and biases."""
    built = strawberry.build(tiny(entry, **model)).double().eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    return built, built.visits()[0].block


def use_of(model):
    return Use(torch.arange(T), 0, model.positional, model.weights)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(B, T, C, dtype=torch.float64)


def linear(x, projection):
    """`W x + b` for one vector, row by row."""
    y = [sum(w * v for w, v in zip(row, x, strict=True)) for row in projection.weight]
    y = torch.stack(y)
    return y if projection.bias is None else y + projection.bias


def softmax_mix(q, keys, values):
    """One query (D,) over lists of keys and values."""
    scores = [math.exp((q @ k).item() / math.sqrt(len(q))) for k in keys]
    return sum(s * v for s, v in zip(scores, values, strict=True)) / sum(scores)


def rms(x, eps=1e-6):
    return x / torch.sqrt((x**2).mean() + eps)


def rotated(x, position, base=10000.0, sign=1):
    """The vector, turned pair by pair: (i, i + D/2) by position * base^(-2i/D)."""
    D = len(x)
    y = x.clone()
    for i in range(D // 2):
        angle = sign * position * base ** (-2 * i / D)
        y[i] = x[i] * math.cos(angle) - x[i + D // 2] * math.sin(angle)
        y[i + D // 2] = x[i + D // 2] * math.cos(angle) + x[i] * math.sin(angle)
    return y


@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("positional", ["none", "rope"])
def test_mha(x, n_kv_head, qk_norm, positional):
    """Multi-head attention: grouped keys, QK-norm and rotation, query by query."""
    entry = {"attention": {"use": "mha", "n_head": 4, "n_kv_head": n_kv_head, "qk_norm": qk_norm}}
    model, block = block_of(entry, positional=positional, bias=True)
    mixer, D = block.attention, 4
    turn = rotated if positional == "rope" else (lambda v, t: v)
    expected = torch.zeros_like(x)
    for b in range(B):
        qkv = torch.stack([linear(x[b, t], mixer.qkv) for t in range(T)])
        mixed = []
        for h in range(4):
            group = h // (4 // n_kv_head)
            q = qkv[:, h * D : h * D + D]
            k = qkv[:, 16 + group * D : 16 + group * D + D]
            v = qkv[:, 16 + (n_kv_head + group) * D : 16 + (n_kv_head + group) * D + D]
            if qk_norm:
                q = torch.stack([rms(r) * mixer.q_norm.weight for r in q])
                k = torch.stack([rms(r) * mixer.k_norm.weight for r in k])
            q = [turn(q[t], t) for t in range(T)]
            k = [turn(k[t], t) for t in range(T)]
            mixed.append(torch.stack([softmax_mix(q[t], k[: t + 1], v[: t + 1]) for t in range(T)]))
        y = torch.cat(mixed, dim=1)
        expected[b] = torch.stack([linear(y[t], mixer.out) for t in range(T)])

    actual = mixer(x, use_of(model))

    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_aft_simple(x, qk_norm):
    """AFT-simple: for each channel a mean of the past under exp(key), gated by sigmoid(query)."""
    entry = {"attention": {"use": "aft_simple", "n_qkv": 24, "qk_norm": qk_norm}}
    model, block = block_of(entry, positional="none")
    mixer = block.attention
    expected = torch.zeros_like(x)
    for b in range(B):
        qkv = torch.stack([linear(x[b, t], mixer.qkv) for t in range(T)])
        q, k, v = qkv[:, :24], qkv[:, 24:48], qkv[:, 48:]
        if qk_norm:
            q, k = torch.stack([rms(r) for r in q]), torch.stack([rms(r) for r in k])
        for t in range(T):
            weights = [torch.exp(k[s]) for s in range(t + 1)]
            total = sum(w * v[s] for s, w in enumerate(weights))
            y = torch.sigmoid(q[t]) * total / sum(weights)
            expected[b, t] = linear(y, mixer.head.out)

    torch.testing.assert_close(mixer(x, use_of(model)), expected, rtol=1e-9, atol=1e-9)


def test_expert_abundance(x):
    """The plain form: per-head rows, rotation, QK-norm, attention, SwiGLU mini-FFN."""
    entry = {"attention": {"use": "expert_abundance", "n_head": 2, "n_qkv": 24, "n_ffn": 10}}
    model, block = block_of(entry, positional={"use": "rope", "sign": -1})
    mixer, D = block.attention, 12
    expected = torch.zeros_like(x)
    for b in range(B):
        qkv = torch.stack([linear(x[b, t], mixer.qkv) for t in range(T)])
        heads = []
        for h in range(2):
            q, k, v = qkv[:, 36 * h : 36 * h + 36].split(D, dim=1)
            q = [rms(rotated(q[t], t, sign=-1)) for t in range(T)]
            k = [rms(rotated(k[t], t, sign=-1)) for t in range(T)]
            heads.append([softmax_mix(q[t], k[: t + 1], v[: t + 1]) for t in range(T)])
        for t in range(T):
            y = torch.cat([heads[0][t], heads[1][t]])
            u, gate = linear(y, mixer.head.swiglu).split(10)
            expected[b, t] = linear(u * gate * torch.sigmoid(gate), mixer.head.out)

    torch.testing.assert_close(mixer(x, use_of(model)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["swiglu", "gelu", "gelu_tanh", "relu", "relu2"])
def test_ffn(x, name):
    """SwiGLU and the plain networks, token by token."""
    field = {} if name == "swiglu" else {"activation": name}
    entry = {"ffn": {"use": "swiglu" if name == "swiglu" else "mlp", "n_ffn": 20, **field}}
    model, block = block_of(entry, positional="none", bias=True)
    act = {
        "gelu": lambda h: h * 0.5 * (1 + torch.erf(h / math.sqrt(2))),
        "gelu_tanh": lambda h: (
            h * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        ),
        "relu": lambda h: torch.where(h > 0, h, 0.0),
        "relu2": lambda h: torch.where(h > 0, h * h, 0.0),
        "swiglu": lambda h: h[:20] * h[20:] / (1 + torch.exp(-h[20:])),
    }[name]
    rows = [linear(act(linear(row, block.ffn.up)), block.ffn.down) for row in x.flatten(0, 1)]

    torch.testing.assert_close(block.ffn(x, use_of(model)), torch.stack(rows).view(B, T, C))


def test_rmsnorm(x):
    """X / sqrt(mean(x^2) + eps) * gain."""
    model, _ = block_of({"attention": "mha"}, norm={"use": "rmsnorm", "eps": 0.1})
    rows = [rms(row, 0.1) * model.norm.weight for row in x.flatten(0, 1)]

    torch.testing.assert_close(model.norm(x).flatten(0, 1), torch.stack(rows))


def test_layernorm(x):
    """(x - mean) / sqrt(var + eps) * gain + bias."""
    model, _ = block_of({"attention": "mha"}, norm={"use": "layernorm", "eps": 0.1})
    rows = [
        (row - row.mean()) / torch.sqrt(((row - row.mean()) ** 2).mean() + 0.1) * model.norm.weight
        + model.norm.bias
        for row in x.flatten(0, 1)
    ]

    torch.testing.assert_close(model.norm(x).flatten(0, 1), torch.stack(rows))


def test_learned_positions():
    """The table's row t is added to the embedding of token t, and nothing goes past its end."""
    model, _ = block_of({"attention": "mha"}, positional="learned")
    table = model.positional.table.weight

    assert model.positional.limit() == 16
    torch.testing.assert_close(model.positional.embed(torch.tensor([3, 0])), table[[3, 0]])


def test_rope_turns_by_distance_alone():
    """Scores of rotated queries and keys depend on the distance of their positions only."""
    model, _ = block_of({"attention": "mha"}, positional="rope")
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def score(i, j):
        def turn(v, position):
            return model.positional.rotate(
                v, Use(torch.tensor([position]), 0, model.positional, model.weights)
            )

        return float((turn(q, i) * turn(k, j)).sum())

    assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_factorized():
    """Every matrix of a block is its basis times the block's factor, row by row of width C."""
    entry = {
        "repeat": 2,
        "weights": {"use": "factorized", "rank": 3},
        "attention": {"use": "aft_simple", "n_qkv": 8},
        "ffn": {"use": "swiglu", "n_ffn": 24},
    }
    model = strawberry.build(tiny(entry, positional="none")).double()
    for number, visit in enumerate(model.visits()):
        use = Use(torch.arange(T), 0, model.positional, visit.weights)
        for name, projection in (
            ("attention_qkv_24x16", visit.block.attention.qkv),
            ("attention_out_16x8", visit.block.attention.head.out),
            ("ffn_up_48x16", visit.block.ffn.up),
            ("ffn_down_16x24", visit.block.ffn.down),
        ):
            basis, factor = visit.weights.bases[name], visit.weights.blocks[str(number)]
            flat = [(row * column).sum() for row in basis for column in factor]
            expected = torch.stack(flat).view(projection.out_features, projection.in_features)
            v = torch.randn(5, projection.in_features, dtype=torch.float64)

            torch.testing.assert_close(projection.matrix(use), expected)
            torch.testing.assert_close(projection(v, use), v @ expected.T)
