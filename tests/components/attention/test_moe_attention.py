"""The mixture of attention heads against loops, against multi-query attention, and its costs."""

import math

import pytest
import torch

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from strawberry.model.accounting import account
from tests.support import tiny

B, T, C, E = 2, 9, 16, 4
VARIANTS = {
    "one head": {},
    "two heads": {"n_kv_head": 2},
    "one active": {"active": 1},
    "all active": {"active": 4, "qk_norm": True},
    "bias": {"balance_loss": 0.0, "z_loss": 0.0, "bias_rate": 0.01, "n_qkv": 24},
}


@pytest.fixture
def x():
    return torch.randn(B, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def idx():
    return torch.randint(61, (3, 13), generator=torch.Generator().manual_seed(5))


def model_of(positional="none", **fields):
    """One block with a mixture of 4 attention experts."""
    entry = {"attention": {"use": "moe_attention", "experts": E, **fields}}
    return strawberry.build(tiny(entry, positional=positional, norm="rmsnorm"))


def attention_of(**fields):
    model = model_of(**fields).double()
    attention = model.visits()[0].block.attention
    with torch.no_grad():  # far from even, so that some expert may get no token
        attention.router.weight.normal_()
    return attention, Use(torch.arange(T), 0, model.positional, model.weights)


def rms(v):
    return v / (v.square().mean() + 1e-6).sqrt()


def loop(attention, x, k, rotate=lambda v, _: v):
    """Token by token, expert by expert, head by head, key by key."""
    D, G, W = attention.width, attention.n_kv_head, attention.router.weight
    norm = rms if attention.q_norm is not None else (lambda v: v)
    kv = attention.kv.weight.view(2, G, D, C)
    bias = attention.router.bias if attention.router.bias is not None else torch.zeros(E)
    rows = []
    for sequence in x:
        for t in range(T):
            exps = [math.exp(float((w @ sequence[t]).detach())) for w in W]
            shares = (W @ sequence[t]).softmax(-1)
            chosen = sorted(range(E), key=lambda e, s=exps: -s[e] / sum(s) - float(bias[e]))[:k]
            total = float(sum(shares[e].detach() for e in chosen))
            y = torch.zeros(C, dtype=x.dtype)
            for e in chosen:
                heads = []
                for g in range(G):
                    matrix = attention.query.weight[e].view(G, D, C)[g]
                    q = rotate(norm(matrix @ sequence[t]), t)
                    keys = [rotate(norm(kv[0, g] @ sequence[s]), s) for s in range(t + 1)]
                    scores = torch.stack([q @ key / D**0.5 for key in keys]).softmax(0)
                    values = [kv[1, g] @ sequence[s] for s in range(t + 1)]
                    heads.append(sum(a * v for a, v in zip(scores, values, strict=True)))
                y = y + shares[e] / total * (attention.out.weight[e] @ torch.cat(heads))
            rows.append(y)
    return torch.stack(rows).view(x.shape)


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_a_loop(x, name):
    """Result and all gradients, the router's among them, are those of plain loops."""
    fields = VARIANTS[name]
    attention, use = attention_of(**fields)
    if attention.router.bias is not None:
        attention.router.bias.copy_(torch.tensor([0.3, -0.3, 0.1, -0.1]))
    inputs = [p for p in attention.parameters() if p.ndim > 1]
    weight = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
    y, _ = attention(x, use)
    expected = loop(attention, x, fields.get("active", 2))

    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        torch.autograd.grad((y * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        rtol=1e-5,
        atol=1e-6,
    )


def test_queries_and_keys_are_rotated(x):
    """With rope every expert's queries turn with their positions, as the shared keys do."""
    attention, use = attention_of(positional="rope")

    def rotate(v, t):
        at = Use(torch.tensor([t]), t, use.positional, use.weights)
        return at.rotate(v.view(1, 1, 1, -1)).flatten()

    torch.testing.assert_close(attention(x, use)[0], loop(attention, x, 2, rotate))


def test_with_all_experts_and_equal_gates_it_is_multi_query_attention(x):
    """Then the experts' matrices, side by side, are those of `mha` with one key-value head."""
    attention, use = attention_of(active=E)
    mha = {"attention": {"use": "mha", "n_head": E, "n_kv_head": 1}}
    model = strawberry.build(tiny(mha, positional="none")).double()
    twin = model.visits()[0].block.attention
    with torch.no_grad():
        attention.router.weight.zero_()
        twin.qkv.weight.copy_(
            torch.cat([attention.query.weight.flatten(0, 1), attention.kv.weight])
        )
        twin.out.weight.copy_(attention.out.weight.transpose(0, 1).flatten(1) / E)
    expected = twin(x, Use(torch.arange(T), 0, model.positional, model.weights))

    torch.testing.assert_close(attention(x, use)[0], expected)


def test_documents_are_kept_apart(x):
    """A token sees none of another document, as if that were not there."""
    attention, use = attention_of(n_kv_head=2)
    documents = torch.tensor([[0] * 4 + [1] * 5] * B)
    masked = Use(use.positions, 0, use.positional, use.weights, documents=documents)
    alone = Use(torch.arange(5), 0, use.positional, use.weights)

    torch.testing.assert_close(attention(x, masked)[0][:, 4:], attention(x[:, 4:], alone)[0])


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter(name, idx):
    """In every variant each parameter learns, the router with one active expert too."""
    model = model_of(**VARIANTS[name])
    model.loss(idx, (idx * 7 + 3) % 61).total.backward()

    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_generation_equals_the_parallel_form(name, idx):
    """Cached calls of any split give the logits of one call, in every variant."""
    model = model_of("rope", **VARIANTS[name]).eval()
    cache = model.new_cache(batch=3, length=13)
    pieces = [model(piece, cache=cache) for piece in idx.split([5, 1, 7], dim=1)]

    torch.testing.assert_close(torch.cat(pieces, dim=1), model(idx), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_compiles_into_one_graph(name, idx):
    """Every variant compiles without a break, with equal results."""
    model = model_of("rope", **VARIANTS[name])
    torch._dynamo.reset()
    compiled = torch.compile(model.trunk, fullgraph=True, backend="aot_eager")

    torch.testing.assert_close(compiled(idx)[0], model.trunk(idx)[0], rtol=1e-4, atol=1e-5)


def test_terms_are_for_training(idx):
    """In training the loss has the weighted terms and logs them; evaluation is the plain loss."""
    model = model_of(balance_loss=0.5, z_loss=0.25)
    loss = model.loss(idx, idx)
    expected = loss.cross_entropy + 0.5 * loss.metrics["moe_balance"] + 0.25 * loss.metrics["moe_z"]

    torch.testing.assert_close(loss.total.detach(), expected)
    assert model.eval().loss(idx, idx).metrics == {}


def test_cost_is_that_of_the_active_experts():
    """FLOPs grow with the active experts, not with all; the cache with neither."""

    def block(**fields):
        entry = {"attention": {"use": "moe_attention", "n_qkv": 16, **fields}}
        return account(tiny(entry, positional="none")).parts[0].cost

    D, S = 8, 16
    projections = 2 * (2 * C * D + 2 * D * C) + 2 * C * 2 * D
    few = block(experts=4, active=2)
    many = block(experts=8, active=2)

    assert few.flops_forward / S == projections + 2 * (4 * S * D) + 2 * C * 4
    assert many.flops_forward - few.flops_forward == S * 2 * C * 4
    assert few.cache_bytes_per_token == many.cache_bytes_per_token == 2 * D * 4


def test_parameter_kinds():
    """Experts are banks, the router is a router, shared keys and values a matrix."""
    kinds = {info.name.split(".")[-2]: info.kind for info in model_of().parameter_infos()}

    assert kinds["query"] == kinds["out"] == "bank"
    assert (kinds["router"], kinds["kv"]) == ("router", "matrix")


@pytest.mark.parametrize(
    ("positional", "fields", "message"),
    [
        ("none", {"active": 3}, "width 16 can't be split into 3 experts of 1 heads"),
        ("none", {"active": 4, "experts": 2}, "must be at most experts = 2, got 4"),
        ("rope", {"n_qkv": 6}, "rope needs an even head width, got 3"),
    ],
)
def test_wrong_combinations_are_refused(positional, fields, message):
    """Each names the field and says why."""
    entry = {"attention": {"use": "moe_attention", **fields}}
    with pytest.raises(RecipeError, match=message):
        strawberry.build(tiny(entry, positional=positional), device="meta")
