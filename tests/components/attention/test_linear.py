"""Gated linear attention and the delta rules against a loop over tokens, and under strain."""

import math

import pytest
import torch
from torch.nn import functional as F

import strawberry
from strawberry.components.attention.linear import HeadDecay, LinearAttention
from strawberry.components.attention.recurrence import recurrence
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from strawberry.model.accounting import account
from tests.support import recipe_of, tiny

B, T, C, H = 2, 11, 16, 2
D, E = 5, 7  # of a head, in the tests of the recurrence alone
FORMS = {
    "gla": {"rule": "gla"},
    "gla_head": {"rule": "gla", "decay": "head", "conv": 3, "n_v": 24, "qk_norm": True},
    "delta": {"rule": "delta", "gate": True},
    "delta_plain": {"rule": "delta", "conv": 0, "head_norm": False},
    "gated_delta": {"rule": "gated_delta", "n_qkv": 12, "n_v": 24},
    "gated_delta_channel": {"rule": "gated_delta", "decay": "channel", "decay_root": 2.0},
}
SPLITS = [[T], [1] * T, [5, 1, 1, 4], [4, 4, 3]]


def loop(q, k, v, log_decay, beta, state=None):
    """The recurrence as it is written: decay, write, read, token by token."""
    S = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]) if state is None else state
    rows = []
    for t in range(q.shape[2]):
        if log_decay is not None:
            S = S * log_decay[:, :, t, :, None].exp()
        u = v[:, :, t]
        if beta is not None:
            u = beta[:, :, t] * (u - (S * k[:, :, t, :, None]).sum(2))
        S = S + k[:, :, t, :, None] * u[:, :, None, :]
        rows.append((S * q[:, :, t, :, None]).sum(2))
    return torch.stack(rows, 2), S


def inputs(length, decay, delta, dtype=torch.float64):
    """Random q, k (of length 1 for the delta rule), v, log decays and b."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, H, length, width, dtype=dtype) for width in (D, D, E))
    width = {"none": 0, "head": 1, "channel": D}[decay]
    log_decay = -3 * torch.rand(B, H, length, width, dtype=dtype) if width else None
    beta = torch.rand(B, H, length, 1, dtype=dtype) if delta else None
    return q, F.normalize(k, dim=-1) if delta else k, v, log_decay, beta


def run(q, k, v, log_decay, beta, state=None, chunk=4):
    return recurrence(q, k, v, log_decay=log_decay, beta=beta, state=state, chunk=chunk)


@pytest.mark.parametrize("delta", [False, True], ids=["additive", "delta"])
@pytest.mark.parametrize("decay", ["none", "head", "channel"])
@pytest.mark.parametrize("length", [1, 2, 8, 13])
@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_recurrence(chunk, length, decay, delta):
    """Outputs, last state and all gradients are those of the loop, whatever the chunk."""
    given = [*inputs(length, decay, delta), torch.randn(B, H, D, E, dtype=torch.float64)]
    wanted = [x.requires_grad_() for x in given if x is not None]
    y, last = run(*given, chunk=chunk)
    expected, expected_last = loop(*given)

    torch.testing.assert_close((y, last), (expected, expected_last), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum() + last.sum(), wanted),
        torch.autograd.grad(expected.square().sum() + expected_last.sum(), wanted),
        rtol=1e-8,
        atol=1e-8,
    )


STRENGTHS = {
    "none": torch.zeros,
    "strong": lambda shape: torch.full(shape, -20.0),
    "all": lambda shape: torch.full(shape, -1e4),
    "mixed": lambda shape: torch.where(torch.rand(shape) < 0.2, -20.0, -1e-3),
    "wide": lambda shape: -torch.rand(shape).mul(12).sub(8).exp(),
}


@pytest.mark.parametrize("delta", [False, True], ids=["additive", "delta"])
@pytest.mark.parametrize("decay", ["head", "channel"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_strong_decays(strength, decay, delta):
    """With decays of e^-20 a token, of nothing, of everything, and mixed, float32 stays exact."""
    q, k, v, log_decay, beta = inputs(150, decay, delta, torch.float32)
    log_decay = STRENGTHS[strength](log_decay.shape)
    given = [x for x in (q, k, v, log_decay, beta) if x is not None]
    for x in given:
        x.requires_grad_()
    y, _ = run(q, k, v, log_decay, beta, chunk=64)
    grads = torch.autograd.grad(y.square().mean(), given)
    exact = [x if x is None else x.double() for x in (q, k, v, log_decay, beta)]
    expected, _ = loop(*exact)
    expected_grads = torch.autograd.grad(expected.square().mean(), given)

    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)
    for grad, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


def test_a_strong_decay_leaves_its_neighbours_precise():
    """After a decay of e^-1000, what comes later is as precise as if it had never been."""
    q, k, v, log_decay, _ = inputs(64, "channel", False, torch.float32)
    log_decay[:, :, :31] = -1000.0
    late = [x[:, :, 30:] for x in (q, k, v, log_decay)]
    y, _ = run(q, k, v, log_decay, None, chunk=64)
    expected, _ = loop(*(x.double() for x in late), None)

    torch.testing.assert_close(y[:, :, 30:].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_repeated_keys(beta):
    """The delta rule with the same key at every token: b = 1 keeps the last value, b = 0 none."""
    q, k, v, _, b = inputs(150, "none", True, torch.float32)
    k = k[:, :, :1].expand_as(k)
    y, last = run(q, k, v, None, torch.full_like(b, beta), chunk=64)
    expected = (q * k).sum(-1, keepdim=True) * v * beta

    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, k[:, :, 0, :, None] * v[:, :, -1:] * beta)


def mixer_of(form):
    """The mixer of a one-block model in float64, with random gains and biases; and a use."""
    fields = {"use": "linear", "n_head": H, "chunk": 4, **FORMS[form]}
    model = strawberry.build(tiny({"attention": fields}, positional="none")).double().eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    use = Use(torch.arange(T), 0, model.positional, model.weights)
    return model.visits()[0].block.attention, use


@pytest.fixture
def x():
    return torch.randn(B, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def silu(x):
    return x / (1 + torch.exp(-x))


def decays(mixer, x, fields):
    """Log decays of one sequence (T, C), for each token and head: (D,), (1,) or none."""
    if mixer.decay is None:
        return None
    if isinstance(mixer.decay, HeadDecay):
        step = x @ mixer.decay.step.weight.T + mixer.decay.offset
        return -(mixer.decay.log_rate.exp() * torch.log1p(torch.exp(step)))[:, :, None]
    z = x @ mixer.decay.down.weight.T @ mixer.decay.up.weight.T + mixer.decay.offset
    logs = torch.log(1 / (1 + torch.exp(-z))) / fields.get("decay_root", 16)
    return logs.view(len(x), H, -1)


def literal(mixer, x, fields):
    """The whole mixer for one sequence (T, C), head by head, token by token."""
    rule = fields["rule"]
    qkv = x @ mixer.qkv.weight.T
    taps = fields.get("conv", 0 if rule == "gla" else 4)
    if taps:
        past = torch.cat([qkv.new_zeros(taps - 1, qkv.shape[1]), qkv])
        qkv = torch.stack(
            [
                sum(mixer.conv.weight[i] * past[t + taps - 1 - i] for i in range(taps))
                for t in range(T)
            ]
        )
    if taps or rule != "gla":
        qkv = silu(qkv)
    keys, values = fields.get("n_qkv", C), fields.get("n_v", C)
    logs = decays(mixer, x, fields)
    b = None if mixer.beta is None else 1 / (1 + torch.exp(-x @ mixer.beta.weight.T))
    gate = None if mixer.gate is None else silu(x @ mixer.gate.weight.T)
    rows = []
    states = [x.new_zeros(keys // H, values // H) for _ in range(H)]
    for t in range(T):
        heads = []
        for h in range(H):
            q, k, v = (part.view(H, -1)[h] for part in qkv[t].split([keys, keys, values]))
            if fields.get("qk_norm", rule != "gla"):
                q, k = (y / torch.sqrt(y @ y + 1e-6) for y in (q, k))
            if logs is not None:
                states[h] = torch.exp(logs[t, h])[:, None] * states[h]
            u = v if b is None else b[t, h] * (v - k @ states[h])
            states[h] = states[h] + torch.outer(k, u)
            o = q @ states[h] / math.sqrt(len(q))
            if fields.get("head_norm", True):
                o = o / torch.sqrt((o**2).mean() + 1e-6) * mixer.norm.weight
            heads.append(o)
        y = torch.cat(heads)
        rows.append(mixer.out.weight @ (y if gate is None else y * gate[t]))
    return torch.stack(rows)


@pytest.mark.parametrize("form", FORMS)
def test_equations(x, form):
    """Projections, convolution, decays, recurrence, norm and gate, written out for each form."""
    mixer, use = mixer_of(form)
    x.requires_grad_()
    wanted = (x, *mixer.parameters())
    y = mixer(x, use)
    expected = torch.stack([literal(mixer, row, FORMS[form]) for row in x])

    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum(), wanted),
        torch.autograd.grad(expected.square().sum(), wanted),
        rtol=1e-6,
        atol=1e-8,
    )


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_any_split_of_calls(x, form, split):
    """Cached calls of any lengths give the parallel form to float64's precision."""
    mixer, use = mixer_of(form)
    state = mixer.new_state(B, T, x.device, x.dtype)
    sizes = {name: t.shape for name, t in state.items()}
    pieces, offset = [], 0
    for piece in x.split(split, dim=1):
        positions = torch.arange(offset, offset + piece.shape[1])
        call = Use(positions, offset, use.positional, use.weights, state=state)
        pieces.append(mixer(piece, call))
        offset += piece.shape[1]

    torch.testing.assert_close(torch.cat(pieces, 1), mixer(x, use), rtol=1e-9, atol=1e-10)
    assert {name: t.shape for name, t in state.items()} == sizes


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_half_precision(form):
    """Bfloat16 is off by little more than rounding the weights alone is, in float32.

    The absolute error says less: where a head's sum is nearly zero its norm makes a small
    difference of rounding a large one, in any precision.
    """
    fields = {"use": "linear", **FORMS[form]}
    recipe = recipe_of(
        {
            "vocab_size": 61,
            "block_size": 32,
            "n_embd": 64,
            "stack": [{"attention": {**fields, "n_qkv": 64, "n_v": 64}, "ffn": "swiglu"}],
        }
    )
    model = strawberry.build(recipe).eval()
    idx = torch.randint(61, (4, 32), generator=torch.Generator().manual_seed(5))
    exact = model(idx)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(idx).float()
    half = model.to(torch.bfloat16)(idx).float()
    rounded = model.float()(idx)
    unavoidable = (rounded - exact).square().mean().sqrt()

    assert (cast - exact).square().mean().sqrt() < 4 * unavoidable
    assert (half - exact).square().mean().sqrt() < 4 * unavoidable


def test_state_is_of_constant_size():
    """D * E float32 numbers for each head and the convolution's tail, whatever the length."""
    mixer, _ = mixer_of("gated_delta")
    short, long = (mixer.new_state(3, n, torch.device("cpu"), torch.bfloat16) for n in (1, 1000))

    assert {name: (t.shape, t.dtype) for name, t in short.items()} == {
        "memory": ((3, H, 6, 12), torch.float32),
        "tail": ((3, 3, 48), torch.bfloat16),
    }
    assert {n: t.shape for n, t in long.items()} == {n: t.shape for n, t in short.items()}


@torch.no_grad()
def test_decays_start_near_one():
    """By channel about 0.958 a token, by head between exp(-1.6) and 1, before the token's say."""
    model = strawberry.build(tiny({"attention": "linear"}))
    channel = model.visits()[0].block.attention.decay
    fields = {"use": "linear", "rule": "gated_delta", "n_head": 16}
    head = strawberry.build(tiny({"attention": fields})).visits()[0].block.attention.decay
    at_rest = torch.zeros(1, 1, C)
    use = Use(torch.arange(1), 0, None, model.weights)

    torch.testing.assert_close(
        channel(at_rest, use).exp(), torch.full((1, 4, 1, 4), 0.5 ** (1 / 16))
    )
    a = head(at_rest, use).exp().flatten()
    assert a.min() > math.exp(-1.6) - 1e-6
    assert 0.75 < a.median() < 1
    assert a.unique().numel() == 16


def test_flops():
    """Counted on the meta device: chunks cost what their products do, linear in the length."""

    def forward(length, rule):
        mixer = {"use": "linear", "rule": rule, "chunk": 8}
        recipe = tiny({"attention": mixer}, block_size=length)
        return account(recipe).parts[0].cost.flops_forward

    for rule in ("gla", "delta", "gated_delta"):
        assert forward(64, rule) == 2 * forward(32, rule)
    # A token's projections, its row of scores and of their product with the values, its part of
    # what the chunk reads from the state and writes to it: 4 heads of width 4, chunks of 8.
    projections = 2 * C * (3 * C + 2 * C) + 2 * 16 * C * 2
    halving = 2 * 4 * (0.5 * 1 + 0.5 * 2 + 0.5 * 4) * 4
    assert forward(64, "gla") == 64 * (projections + halving + 2 * 4 * (8 + 4 + 4) * 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "delta", "decay": "head"}, "rule: gated_delta"),
        ({"rule": "gated_delta", "decay_rank": 4}, "decay: channel"),
        ({"rule": "delta", "decay_root": 4.0}, "decay: channel"),
        ({"rule": "delta", "qk_norm": False}, "diverge"),
        ({"conv": 1}, "must be 0 or at least 2, got 1"),
        ({"chunk": 48}, "64 would be"),
        ({"n_head": 3}, "3 heads"),
        ({"n_v": 18}, "4 heads"),
    ],
    ids=str,
)
def test_refusals(fields, message):
    """Fields that contradict each other are refused where they stand."""
    with pytest.raises(RecipeError, match=message):
        strawberry.build(tiny({"attention": {"use": "linear", **fields}}))


def test_convolution_taps_are_no_matrix():
    """The convolution's weights are vectors to an optimizer, so that none orthogonalises them."""
    fields = {"use": "linear", "rule": "gated_delta"}
    model = strawberry.build(tiny({"attention": fields}))
    kinds = {info.name.split("attention.")[-1]: info.kind for info in model.parameter_infos()}

    assert isinstance(model.visits()[0].block.attention, LinearAttention)
    assert kinds["conv.weight"] == kinds["decay.log_rate"] == kinds["decay.offset"] == "vector"
    assert kinds["qkv.weight"] == kinds["beta.weight"] == "matrix"
