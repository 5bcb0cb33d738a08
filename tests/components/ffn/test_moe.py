"""The mixture of experts against a loop over tokens and experts, and what it may not do."""

import math

import pytest
import torch

import strawberry
from strawberry.components.routing import ExpertRouter
from strawberry.contracts import Use, WeightSource
from strawberry.errors import RecipeError, StrawberryError
from strawberry.model.accounting import account
from strawberry.training.optimizers import assign
from tests.support import TINY, recipe_of, tiny

B, T, C, F = 2, 11, 16, 8
ACT = {
    "bilinear": lambda h: h[:F] * h[F:],
    "geglu": lambda h: h[:F] * torch.nn.functional.gelu(h[F:]),
    "glu": lambda h: h[:F] * torch.sigmoid(h[F:]),
    "reglu": lambda h: h[:F] * torch.relu(h[F:]),
    "swiglu": lambda h: h[:F] * h[F:] * torch.sigmoid(h[F:]),
    "gelu": torch.nn.functional.gelu,
    "relu": torch.relu,
    "relu2": lambda h: torch.relu(h) ** 2,
}
VARIANTS = {
    "sigmoid": {"gate": "sigmoid", "bias_rate": 0.001, "scale": 2.0},
    "noisy": {"noisy": True, "importance_loss": 0.1, "load_loss": 0.1},
    "switch": {"active": 1, "z_loss": 0.001},
    "shared": {"shared": 2, "expert": "relu2"},
    "capacity": {"capacity": 1.25},
    "expert": {"routing": "expert", "z_loss": 0.001},
}
CACHED = [name for name in VARIANTS if name != "expert"]


@pytest.fixture
def x():
    return torch.randn(B, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def idx():
    return torch.randint(61, (3, 13), generator=torch.Generator().manual_seed(5))


def model_of(model=(), **fields):
    """One block with attention and a mixture of 4 experts of hidden width 8."""
    fields = {"experts": 4, "n_ffn": F, **fields}
    return strawberry.build(
        tiny({"attention": "mha", "ffn": {"use": "moe", **fields}}, **dict(model))
    )


def moe_of(**fields):
    model = model_of(**fields).double()
    with torch.no_grad():  # far from even, so that some expert may get no token
        model.visits()[0].block.ffn.router.weight.normal_()
    return model.visits()[0].block.ffn, Use(torch.arange(T), 0, model.positional, model.weights)


def loop(ffn, x, use, act, capacity=math.inf):
    """Each token through its experts, one by one, by the router's own choice."""
    choice = ffn.router(x.flatten(0, 1))
    taken = [0] * 4
    rows = []
    for token, experts, gates in zip(x.flatten(0, 1), choice.expert, choice.gate, strict=True):
        y = torch.zeros(C, dtype=torch.float64)
        for e, gate in zip(experts.tolist(), gates, strict=True):
            taken[e] += 1
            if taken[e] <= capacity:
                y = y + gate * (ffn.down.weight[e] @ act(ffn.up.weight[e] @ token))
        rows.append(y)
    return torch.stack(rows).view(x.shape)


@pytest.mark.parametrize("form", ACT)
def test_equals_a_loop(x, form):
    """Result and all gradients are those of a plain loop over tokens and their experts."""
    ffn, use = moe_of(expert=form, active=2)
    x.requires_grad_()
    inputs = (x, *ffn.parameters())
    weight = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
    y, _ = ffn(x, use)
    expected = loop(ffn, x, use, ACT[form])

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad((y * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
    )


@pytest.mark.parametrize("factor", [0.25, 0.75, 1.0, 4.0])
def test_capacity(x, factor):
    """In training an expert takes its first ceil(factor N k / E) tokens and no more."""
    ffn, use = moe_of(capacity=factor)
    rows = math.ceil(factor * B * T * 2 / 4)
    inputs = tuple(ffn.parameters())
    y, terms = ffn(x, use)
    expected = loop(ffn, x, use, ACT["swiglu"], rows)
    counts = ffn.router(x.flatten(0, 1)).counts
    (dropped,) = [t.value for t in terms if t.name == "moe_dropped"]

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
    )
    assert float(dropped) == pytest.approx(float((counts - rows).clamp(min=0).sum()) / (B * T * 2))
    torch.testing.assert_close(ffn.eval()(x, use), loop(ffn, x, use, ACT["swiglu"]))


@pytest.mark.parametrize(("gate", "factor"), [("softmax", None), ("sigmoid", 1.5)])
def test_experts_choose(x, gate, factor):
    """Each expert takes its best tokens of each sequence, as a loop over both has it."""
    ffn, use = moe_of(routing="expert", gate=gate, capacity=factor, scale=1.5)
    taken = math.ceil((factor or 1.0) * T * 2 / 4)
    inputs = tuple(ffn.parameters())
    y, _ = ffn(x, use)
    expected = []
    for sequence in x:
        logits = sequence @ ffn.router.weight.T
        scores = logits.softmax(-1) if gate == "softmax" else logits.sigmoid()
        rows = [torch.zeros(C, dtype=x.dtype) for _ in range(T)]
        for e in range(4):
            for t in scores[:, e].detach().argsort(descending=True)[:taken].tolist():
                part = ffn.down.weight[e] @ ACT["swiglu"](ffn.up.weight[e] @ sequence[t])
                rows[t] = rows[t] + 1.5 * scores[t, e] * part
        expected.append(torch.stack(rows))
    expected = torch.stack(expected)

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
    )


@torch.no_grad()
def test_expert_choice_looks_ahead_but_not_aside(idx):
    """A later token changes earlier logits, which is declared; another sequence does not."""
    model = model_of(routing="expert").eval()
    ffn = model.visits()[0].block.ffn
    later, other = idx.clone(), idx.clone()
    later[:, -1] = (later[:, -1] + 1) % 61
    other[1:] = (other[1:] + 1) % 61

    assert not ffn.causal
    assert ffn.batch_independent
    assert (model(later) - model(idx))[:, :-1].abs().max() > 1e-4
    torch.testing.assert_close(model(other)[0], model(idx)[0])
    torch.testing.assert_close(model(idx[:1])[0], model(idx)[0])
    with pytest.raises(StrawberryError, match="needs whole sequences"):
        model(idx, cache=model.new_cache(batch=3, length=13))


@torch.no_grad()
def test_untaken_tokens(x):
    """The metric is the share of tokens that no expert took; they get nothing."""
    ffn, use = moe_of(routing="expert", capacity=0.3)
    y, terms = ffn(x, use)
    (untaken,) = [t.value for t in terms if t.name == "moe_untaken"]

    assert float(untaken) == pytest.approx(float((y == 0).all(-1).double().mean()))
    assert float(untaken) > 0


def test_expert_choice_in_half_precision(x):
    """Under bfloat16 autocast and in bfloat16 weights the result is close and of the dtype."""
    ffn, use = moe_of(routing="expert")
    ffn = ffn.float().eval()
    exact = ffn(x.float(), use)
    with torch.autocast("cpu", torch.bfloat16):
        cast = ffn(x.float(), use)
    half = ffn.to(torch.bfloat16)(x.bfloat16(), use)

    assert half.dtype == torch.bfloat16
    assert (cast.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_shared_experts(x):
    """Every token goes through them, with gate 1: two side by side are one of twice the width."""
    ffn, use = moe_of(shared=2, expert="gelu")
    up, down = (p.weight for p in ffn.shared)
    expected = loop(ffn, x, use, ACT["gelu"])
    for s in range(2):
        part = slice(s * F, s * F + F)
        expected = expected + ACT["gelu"](x @ up[part].T) @ down[:, part].T

    torch.testing.assert_close(ffn(x, use)[0], expected)


def test_factorized(x):
    """Banks from a shared source: the rows of all experts, one under the other."""
    model = model_of({"weights": {"use": "factorized", "rank": 3}}).double()
    ffn = model.visits()[0].block.ffn
    use = Use(torch.arange(T), 0, model.positional, model.weights)
    basis, factor = model.weights.bases["ffn_up_4x16x16"], model.weights.blocks["0"]
    flat = [(row * column).sum() for row in basis for column in factor]

    torch.testing.assert_close(ffn.up.matrices(use), torch.stack(flat).view(4, 2 * F, C))
    assert ffn(x, use)[0].shape == x.shape
    assert account(tiny({"ffn": "moe"}, weights="factorized")).effective_parameters > 8 * 3 * 24 * C


def test_terms_are_for_training(idx):
    """In training the loss has the weighted terms and logs them; evaluation is the plain loss."""
    model = model_of(balance_loss=0.5, z_loss=0.25)
    loss = model.loss(idx, idx)
    expected = loss.cross_entropy + 0.5 * loss.metrics["moe_balance"] + 0.25 * loss.metrics["moe_z"]

    torch.testing.assert_close(loss.total.detach(), expected)
    assert {"moe_entropy", "moe_max_violation"} < set(loss.metrics)
    assert model.eval().loss(idx, idx).metrics == {}


def test_weights_may_differ_by_block(idx):
    """Each block's loss counts with its own weight, in a mean over the blocks."""
    entries = [
        {"attention": "mha", "ffn": {"use": "moe", "balance_loss": weight}} for weight in (0.5, 0.1)
    ]
    model = strawberry.build(tiny(*entries))
    first, second = (t.value for t in model.trunk(idx)[1] if t.name == "moe_balance")
    loss = model.loss(idx, idx)

    torch.testing.assert_close(
        loss.total, loss.cross_entropy + (0.5 * first + 0.1 * second) / 2, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(loss.metrics["moe_balance"], (first + second).detach() / 2)


def test_a_source_without_banks_is_refused():
    """A weight source that knows matrices alone says so."""

    class Plain(WeightSource):
        banks = False
        declare = matrix = None

    with pytest.raises(ValueError, match="Plain weights don't support stacks of expert matrices"):
        Plain().bank(None)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter(name, idx):
    """In every variant each parameter learns."""
    model = model_of(**VARIANTS[name])
    torch.manual_seed(0)
    model.loss(idx, (idx * 7 + 3) % 61).total.backward()

    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", CACHED)
@torch.no_grad()
def test_generation_equals_the_parallel_form(name, idx):
    """Cached calls of any split give the logits of one call, in every variant that has a cache."""
    model = model_of(**VARIANTS[name]).eval()
    cache = model.new_cache(batch=3, length=13)
    pieces = [model(piece, cache=cache) for piece in idx.split([5, 1, 7], dim=1)]

    torch.testing.assert_close(torch.cat(pieces, dim=1), model(idx), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_compiles_into_one_graph(name, idx):
    """Every variant compiles without a break; without noise, with equal results and loads."""
    model, twin = model_of(**VARIANTS[name]), model_of(**VARIANTS[name])
    torch._dynamo.reset()
    compiled = torch.compile(model.trunk, fullgraph=True, backend="aot_eager")
    actual, expected = compiled(idx)[0], twin.trunk(idx)[0]
    loads = [
        [m.load.tolist() for m in made.modules() if isinstance(m, ExpertRouter)]
        for made in (model, twin)
    ]
    if name != "noisy":
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        assert loads[0] == loads[1]


def test_after_step_is_called_once(idx):
    """A block used at every step of a recursion moves its bias once, by the loads of all uses."""
    fields = {"use": "moe", "experts": 4, "gate": "sigmoid", "bias_rate": 0.01}
    model = strawberry.build(tiny({"recur": 3, "attention": "mha", "ffn": fields}))
    router = model.visits()[0].block.ffn.router
    model.loss(idx, idx)

    assert int(router.load.sum()) == 3 * idx.numel() * 2
    model.after_step()
    assert 0 < float(router.bias.abs().max()) <= 0.02
    assert "router.load" not in " ".join(model.state_dict())
    assert "router.bias" in " ".join(model.state_dict())


def test_flops_are_those_of_the_active_experts():
    """A token costs its active experts and the router, whatever the number of experts."""
    reports = [account(tiny({"ffn": {"use": "moe", "experts": n, "n_ffn": F}})) for n in (4, 8)]
    experts, router = 2 * (2 * C * 2 * F + 2 * F * C), 2 * C

    assert [r.parts[0].cost.flops_forward / 16 for r in reports] == [
        experts + router * 4,
        experts + router * 8,
    ]
    training, forward = (
        getattr(reports[0].parts[0].cost, f"flops_{s}") for s in ("training", "forward")
    )
    assert training == 3 * forward


def test_flops_of_expert_choice():
    """Experts that choose cost what `capacity` says, in the mean over tokens."""
    fields = {"use": "moe", "routing": "expert", "experts": 4, "n_ffn": F}
    for factor in (1.0, 0.5):
        report = account(tiny({"ffn": {**fields, "capacity": factor}}))
        experts = factor * 2 * (2 * C * 2 * F + 2 * F * C)

        assert report.parts[0].cost.flops_forward / 16 == experts + 2 * C * 4


def test_default_width():
    """Active and shared experts together have about the dense network's width."""
    ffn = strawberry.build(tiny({"ffn": {"use": "moe", "active": 2, "shared": 1}}))
    mixture = ffn.visits()[0].block.ffn

    assert mixture.down.in_features == 16  # a third of 48
    assert mixture.shared[1].in_features == 16


def test_parameter_kinds():
    """Banks and routers have kinds of their own; AdamW takes both."""
    model = {**TINY, "stack": [{"ffn": {"use": "moe", "noisy": True}}]}
    recipe = recipe_of(model, optimizer="adamw")
    kinds = {
        info.name.split(".ffn.")[-1]: info.kind
        for info in strawberry.build(recipe).parameter_infos()
    }

    assert kinds["up.weight"] == kinds["down.weight"] == "bank"
    assert kinds["router.weight"] == kinds["router.noise"] == "router"
    assert len(assign(recipe, strawberry.build(recipe).parameter_infos())) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"experts": 2, "active": 3}, "must be at most experts = 2, got 3"),
        ({"active": 1, "normalize": True}, "is always 1"),
        ({"noisy": True, "gate": "sigmoid"}, "needs `gate: softmax`"),
        ({"noisy": True, "bias_rate": 0.1}, "exclude each other"),
        ({"load_loss": 0.1}, "needs `noisy: true`"),
        ({"noisy": True, "load_loss": 0.1, "experts": 2}, "no load to balance"),
        ({"routing": "expert", "experts": 2, "active": 3}, "must be at most experts = 2, got 3"),
        ({"routing": "expert", "normalize": True}, "no gates to normalise"),
        ({"routing": "expert", "noisy": True}, "needs `routing: token`"),
        ({"routing": "expert", "balance_loss": 0.01}, "no load to balance"),
        ({"routing": "expert", "bias_rate": 0.01}, "no load to balance"),
    ],
)
def test_wrong_combinations_are_refused(fields, message):
    """Each names the field and says why."""
    with pytest.raises(RecipeError, match=message):
        strawberry.build(tiny({"ffn": {"use": "moe", **fields}}), device="meta")
