"""The Expert Abundance with several experts, against its definition as loops in float64."""

import pytest
import torch
from torch.nn import functional as F

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from strawberry.model.accounting import account
from tests.support import tiny

B, T, C, D = 2, 9, 16, 4


def built(positional="none", **fields):
    """The mixer of a one-block model, and the model, in float64."""
    entry = {"attention": {"use": "expert_abundance", "n_head": 4, "n_ffn": 10, **fields}}
    model = strawberry.build(tiny(entry, positional=positional)).double()
    return model, model.visits()[0].block.attention


def rms(x):
    return x / torch.sqrt(x.square().mean() + 1e-6)


def by_loops(mixer, x, windows, shared=0, softmax=False):
    """Token by token: which experts, what each of their heads sees, the mini-FFN over the parts."""
    local, router = mixer.local, mixer.local.router
    E, k, n = router.experts, router.active, local.heads
    y = torch.zeros(B, T, C, dtype=torch.float64)
    for b in range(B):
        rows = x[b] @ local.kv.weight.T
        keys, values = (part.view(T, local.kv_heads, D) for part in rows.chunk(2, dim=1))
        for t in range(T):
            logits = router.weight @ x[b, t]
            scores = logits.softmax(0) if softmax else logits.sigmoid()
            bias = 0 if router.bias is None else router.bias
            chosen = (scores + bias).argsort(descending=True)[:k].tolist()
            gates = scores[chosen] / scores[chosen].sum() if k > 1 else scores[chosen]
            everyone = [*zip(chosen, gates, strict=True), *((E + i, 1.0) for i in range(shared))]
            z = torch.zeros(20, dtype=torch.float64)
            for e, gate in everyone:
                queries = (local.q.weight[e] @ x[b, t]).view(n, D)
                part = []
                for j in range(n):
                    kv = j // (n // local.kv_heads)
                    first = max(0, t - windows[e] + 1)
                    products = [rms(queries[j]) @ rms(keys[s, kv]) for s in range(first, t + 1)]
                    shares = (torch.stack(products) / D**0.5).softmax(0)
                    part.append(shares @ values[first : t + 1, kv])
                z += gate * (local.swiglu.weight[e] @ torch.cat(part))
            u, gate = z.chunk(2)
            y[b, t] = mixer.out.weight @ (u * F.silu(gate))
    return y


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({"experts": 4, "active": 2}, [T] * 4),
        ({"experts": 4, "active": 2, "window": 3}, [3] * 4),
        ({"experts": 4, "active": 3, "window": [1, 2, 4, 9]}, [1, 2, 4, 9]),
        ({"experts": 2, "active": 1, "window": [2, 5]}, [2, 5]),
        ({"experts": 2, "active": 1, "n_kv_head": 1}, [T] * 2),
        ({"experts": 2, "active": 1, "shared": 1, "window": [2, 3, 6]}, [2, 3, 6]),
        ({"experts": 4, "active": 4, "gate": "softmax"}, [T] * 4),
    ],
    ids=str,
)
def test_definition(fields, windows):
    """Queries and mini-FFN rows of the chosen experts alone, each with its own window."""
    model, mixer = built(**fields)
    mixer.eval()
    torch.manual_seed(1)
    x = torch.randn(B, T, C, dtype=torch.float64)
    with torch.no_grad():
        mixer.local.router.weight.normal_()
        if mixer.local.router.bias is not None:
            mixer.local.router.bias.uniform_(-0.5, 0.5)
    use = Use(torch.arange(T), 0, model.positional, model.weights)

    expected = by_loops(mixer, x, windows, fields.get("shared", 0), fields.get("gate") == "softmax")

    torch.testing.assert_close(mixer(x, use), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("window", [None, 3])
def test_equal_experts_are_one(window):
    """Experts that are all alike give what one of them gives alone: the plain form."""
    model, mixer = built("rope", experts=2, active=2, window=window, n_ffn=10)
    plain_model, plain = built("rope", n_head=2, n_qkv=8, window=window, n_ffn=10)
    local, n = mixer.local, 2
    q, k, v = (plain.qkv.weight.view(n, 3, D, C)[:, i].reshape(n * D, C) for i in range(3))
    with torch.no_grad():
        local.q.weight.copy_(q.expand(2, -1, -1))
        local.kv.weight.copy_(torch.cat((k, v)))
        local.swiglu.weight.copy_(plain.head.swiglu.weight.expand(2, -1, -1))
        mixer.out.weight.copy_(plain.head.out.weight)
    x = torch.randn(B, T, C, dtype=torch.float64)

    def run(one, of):
        return one.eval()(x, Use(torch.arange(T), 0, of.positional, of.weights))

    torch.testing.assert_close(run(mixer, model), run(plain, plain_model), rtol=1e-6, atol=1e-7)


def test_all_experts_are_the_whole_concatenation():
    """With every expert active and equal gates, the parts go through one matrix side by side."""
    model, mixer = built(experts=4, active=4)
    local = mixer.eval().local
    with torch.no_grad():
        local.router.weight.zero_()
    x = torch.randn(B, T, C, dtype=torch.float64)
    use = Use(torch.arange(T), 0, model.positional, model.weights)

    q = F.rms_norm((x @ local.q.weight.flatten(0, 1).T).view(B, T, 4, D), (D,), None, 1e-6)
    k, v = (x @ local.kv.weight.T).view(B, T, 2, D).unbind(2)
    k = F.rms_norm(k, (D,), None, 1e-6)
    scores = torch.einsum("bthd,bsd->bhts", q, k) / D**0.5
    shares = scores.masked_fill(~torch.ones(T, T).bool().tril(), -torch.inf).softmax(-1)
    parts = torch.einsum("bhts,bsd->bthd", shares, v).flatten(2)
    whole = local.swiglu.weight.transpose(0, 1).flatten(1) / 4  # (2 hidden, 4 D), equal gates
    u, gate = (parts @ whole.T).chunk(2, dim=-1)

    torch.testing.assert_close(
        mixer(x, use), (u * F.silu(gate)) @ mixer.out.weight.T, rtol=1e-6, atol=1e-7
    )


def counted(**fields):
    entry = {"attention": {"use": "expert_abundance", "n_head": 8, "n_qkv": 32, **fields}}
    return account(tiny(entry, positional="none")).parts[0].cost.flops_forward


def test_counted_cost_falls_with_the_active_experts():
    """Queries, scores and mini-FFN rows of the active experts alone are counted and computed."""
    length, n_kv, hidden = 16, 1, 16
    for active in (1, 2, 4, 8):
        queries = 2 * active * D * C
        scores = 4 * active * D * length
        mini_ffn = 2 * active * D * 2 * hidden + 2 * hidden * C
        rest = 2 * C * 8 + 2 * C * 2 * n_kv * D
        expected = length * (queries + scores + mini_ffn + rest)

        assert counted(experts=8, active=active) == expected


def test_balance():
    """The bias moves towards experts that few tokens chose; losses and metrics are reported."""
    model, mixer = built(experts=4, active=2, balance_loss=0.01, z_loss=0.1, window=[1, 2, 3, 4])
    loss = model.train().loss(torch.arange(12).view(2, 6), torch.arange(12).view(2, 6))
    loads = mixer.local.router.load.clone()
    model.after_step()

    assert loads.sum() == 12 * 2
    assert mixer.local.router.bias[loads.argmin()] > mixer.local.router.bias[loads.argmax()]
    assert {"experts_balance", "experts_z", "experts_window"} <= set(loss.metrics)
    assert 1 <= loss.metrics["experts_window"] <= 4
    assert loss.total > loss.cross_entropy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"experts": 3}, "4 heads can't be divided among 3 experts"),
        ({"experts": 4, "active": 5}, "must be at most experts = 4, got 5"),
        ({"active": 2}, "there is only one"),
        ({"experts": 4, "window": [1, 2]}, "2 windows for 4 experts"),
        ({"window": [1, 2]}, "2 windows for one expert"),
        ({"experts": 2, "n_kv_head": 4}, "an expert's 2 heads can't share 4"),
        ({"n_kv_head": 2}, "as many heads as there are query heads"),
    ],
    ids=str,
)
def test_wrong_combinations_are_refused(fields, message):
    """Each at build, with what is wrong."""
    with pytest.raises(RecipeError, match=message):
        built(**fields)
