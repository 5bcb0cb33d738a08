"""Retained weights against literal loops of each rule, and what is kept between calls."""

import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

import strawberry
from strawberry.contracts import Use
from strawberry.errors import RecipeError
from strawberry.model.accounting import account
from tests.support import TINY, recipe_of, tiny

C, T, R = 16, 7, 4
RULES = ["swap", "oa", "bilinear", "mlp"]
BLOCK = {"attention": {"use": "aft_simple", "n_qkv": 32, "head": "swiglu"}, "ffn": "moe"}
ATTENTION = {"positional": "none"}


def model_of(*, steps=R, block=BLOCK, **fields):
    """A recursion over one block, in float64, with gains and scales that are not 1."""
    recur = {"recur": steps, "weights": {"use": "retained", **fields}, **block}
    built = strawberry.build(tiny(recur, **ATTENTION))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.endswith(("gain", "tau")) and "part" in name:
                parameter.uniform_(-1.5, -0.5)
    return built.double().eval()


def uses(model, steps=R):
    """The source, and a use of it at each step."""
    visit = model.visits()[0]
    use = Use(torch.arange(T), 0, model.positional, visit.weights)
    return visit.weights, [use.at(step) for step in range(steps)]


def scaled(W, n):
    """N_n."""
    entries = W.flatten().tolist()
    mean = sum(entries) / len(entries)
    std = math.sqrt(sum((w - mean) ** 2 for w in entries) / (len(entries) - 1))
    return W * n**-0.5 / (std + 1e-8)


def unit(W):
    return torch.stack([row / math.sqrt(float((row**2).mean())) for row in W])


def literal(source, part, theta, psi, steps):
    """The matrices of one part, by the rule as it is written."""
    rule, n = source.rule, part.fan_in
    side = C if n % C == 0 else n
    g = 1.0 if part.gain is None else float(part.gain.detach())
    squares = {name: matrix.detach() for name, matrix in source.squares.items()}
    W, T_ = theta.reshape(-1, side), None if psi is None else psi.reshape(-1, side)
    found = []
    for _ in range(steps):
        found.append((scaled(W, n) if rule == "oa" else W).reshape(theta.shape))
        X, Y = (unit(W), None if T_ is None else unit(T_)) if source.gain == "rms" else (W, T_)
        if rule == "swap":
            new = scaled(g * Y * F.silu(X) + X, n)
        elif rule == "oa":
            new = g * scaled(X @ squares[f"mix_{side}"], len(X)) * F.silu(X) + X
        elif rule == "bilinear":
            new = scaled(g * (F.silu(X) * Y) @ (X.T @ Y / math.sqrt(n)) + X, n)
        else:
            M, V = squares[f"mix_{side}"], squares[f"back_{side}"]
            new = scaled(g * F.silu(X @ M) @ V.T + X, n)
        W, T_ = new, W
    return found


def first(part, index=...):
    """Psi of a part, or of one of its experts."""
    if part.left is not None:
        return (part.left.detach() @ part.right.detach().mT)[index]
    return None if part.transform is None else part.transform.detach()[index]


@pytest.mark.parametrize("gain", ["learned", "rms", "none"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule, gain):
    """Every matrix of every step is what the rule says, also one of a stack, and beyond R."""
    rank = {"rank": 3} if rule == "swap" and gain == "none" else {}
    model = model_of(rule=rule, gain=gain, **rank)
    source, steps = uses(model, R + 2)
    assert {part.name for part in source.parts} >= {"attention.swiglu", "ffn.up", "ffn.down"}
    for part in source.parts:
        theta = part.weight.detach()
        got = [source.at(part, use).detach() for use in steps]
        if part.tau is not None:
            scale = part.tau.detach().abs().view(*theta.shape[:-2], 1, 1)
            with torch.no_grad():
                part.tau.fill_(1.0)
            assert not torch.allclose(got[1], source.at(part, uses(model)[1][1]))
            got = [source.at(part, use).detach() for use in uses(model, R + 2)[1]]
            assert (scale > 0).all()
        stack = range(len(theta)) if theta.ndim == 3 else [...]
        for index in stack:
            want = literal(source, part, theta[index], first(part, index), R + 2)
            for step in range(R + 2):
                torch.testing.assert_close(got[step][index], want[step], rtol=1e-9, atol=1e-9)


def test_the_scale_of_a_part():
    """With the rule `mlp`, tau's absolute value is the scale of the result."""
    model = model_of(rule="mlp")
    source, steps = uses(model)
    part = source.parts[0]
    W = source.at(part, steps[1]).detach()

    assert W.std() * part.fan_in**0.5 == pytest.approx(abs(float(part.tau.detach())))


@pytest.mark.parametrize("rule", RULES)
def test_one_step_is_owned(rule):
    """With one step it is `owned` with the same matrices; `oa` normalises them."""
    model = model_of(steps=1, rule=rule)
    owned = strawberry.build(tiny({"recur": 1, **BLOCK}, **ATTENTION)).double().eval()
    given = {
        name.replace(".part.weight", ".weight"): value for name, value in model.state_dict().items()
    }
    if rule == "oa":
        for part in uses(model)[0].parts:
            theta = part.weight.detach()
            theta *= part.fan_in**-0.5 / theta.std(dim=(-2, -1), keepdim=True)
    owned.load_state_dict(given)
    idx = torch.randint(61, (2, T))

    torch.testing.assert_close(model(idx), owned(idx), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_steps_differ(rule):
    """Each step has other weights, whose gradient reaches every parameter."""
    model = model_of(rule=rule, gain="rms" if rule == "bilinear" else "learned")
    dense = uses(model)[0].dense()

    assert list(dense) == [0]
    for matrices in dense[0].values():
        for one, other in itertools.pairwise(matrices):
            change = (other - one).norm() / one.norm()
            assert 1e-3 < change < 2


def test_dense_is_what_a_pass_uses():
    """The exported matrices are those of a pass, by block and name, for any number of steps."""
    model = model_of()
    source, steps = uses(model, R + 1)
    dense = source.dense(R + 1)
    for part in source.parts:
        for step, use in enumerate(steps):
            assert torch.equal(dense[part.block][part.name][step], source.at(part, use))


def test_dense_without_recursion():
    """One trained step has one set of matrices, however many are asked for."""
    (matrices,) = uses(model_of(steps=1))[0].dense(2).values()

    assert all(len(found) == 2 and torch.equal(*found) for found in matrices.values())


@torch.no_grad()
def test_more_steps_than_trained():
    """A deeper recursion goes on with the recurrence: it is that of a model built deeper."""
    model, deeper = model_of(), model_of(steps=R + 2)
    deeper.load_state_dict(model.state_dict())
    idx = torch.randint(61, (2, T))
    (recursion,) = model.stack.recursions()
    recursion.set_steps(R + 2)

    assert torch.equal(model(idx), deeper(idx))


def changes():
    """Ways to change parameters, by name."""

    def optimizer(kind, **fields):
        def change(model):
            chosen = kind(model.parameters(), lr=0.1, **fields)
            model.loss(torch.randint(61, (2, T)), torch.randint(61, (2, T))).total.backward()
            chosen.step()

        return change

    def load(model):
        other = {name: value + 0.1 for name, value in model.state_dict().items()}
        model.load_state_dict(other)

    def assign(model):
        other = {name: value + 0.1 for name, value in model.state_dict().items()}
        model.load_state_dict(other, assign=True)

    def in_place(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)

    return {
        "adamw": optimizer(torch.optim.AdamW),
        "adamw_fused": optimizer(torch.optim.AdamW, fused=True),
        "adamw_foreach": optimizer(torch.optim.AdamW, foreach=True),
        "sgd": optimizer(torch.optim.SGD),
        "load_state_dict": load,
        "assign": assign,
        "in_place": in_place,
        "dtype": lambda model: model.float(),
        "round_trip": lambda model: model.to(torch.bfloat16).double(),
        "after_step": lambda model: model.after_step(),
    }


@pytest.mark.parametrize("how", list(changes()))
def test_what_is_kept_follows_the_parameters(how):
    """After any change of parameters, an evaluation has the weights that a fresh model has."""
    model = model_of(rule="mlp")
    idx = torch.randint(61, (2, T))
    with torch.no_grad():
        model(idx)
    changes()[how](model)
    fresh = model_of(rule="mlp").to(model.embedding.weight.dtype)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(idx), fresh(idx))


def test_kept_without_a_gradient_only():
    """Without a gradient weights are computed once, and used again; with one, in every pass."""
    model = model_of(rule="oa")
    source = uses(model)[0]
    idx = torch.randint(61, (2, T))
    model(idx)
    assert not source.kept

    with torch.no_grad():
        model(idx)
        before = {number: kept.values for number, kept in source.kept.items()}
        model(idx)

    assert len(before) == len(source.parts)
    assert all(source.kept[number].values is values for number, values in before.items())
    assert all(len(values) == R for values in before.values())
    with torch.inference_mode():
        inferred = model(idx)
    with torch.no_grad():
        assert torch.equal(model(idx), inferred)


def test_kept_is_not_saved():
    """What is kept is in no state dict and in no copy."""
    model = model_of()
    names = set(model.state_dict())
    with torch.no_grad():
        model(torch.randint(61, (2, T)))

    assert set(model.state_dict()) == names
    assert not uses(copy.deepcopy(model))[0].kept


def test_once_in_a_pass():
    """A pass with a gradient computes each step's weights once, however many uses there are."""
    model = model_of(rule="swap")
    visit = model.visits()[0]
    use = Use(torch.arange(T), 0, model.positional, visit.weights)
    part = visit.weights.parts[0]

    last = visit.weights.at(part, use.at(R - 1))

    assert visit.weights.at(part, use.at(R - 1)) is last
    assert len(use.once[("retained", part.block, part.number, "used")]) == R


def test_flops_are_for_a_pass():
    """The recurrence's FLOPs are counted once for each pass: more tokens share them."""
    recur = {"recur": 3, "weights": {"use": "retained", "rule": "oa"}, "ffn": "mlp"}

    owned = account(tiny({"recur": 3, "ffn": "mlp"})).flops_forward_per_token
    rows = 2 * 4 * C  # up and down, of 4 C rows of C each
    once = 2 * 2 * rows * C * C

    def report(batch):
        return account(recipe_of({**TINY, "stack": [recur]}, train={"batch_size": batch}))

    for batch in (1, 4):
        extra = report(batch).flops_forward_per_token - owned
        assert extra == pytest.approx(once / (batch * TINY["block_size"]))


def test_parameter_kinds():
    """Theta, Psi and M are matrices, stacks are banks, gains and scales vectors."""
    for fields in ({"rule": "mlp"}, {"rank": 3}):
        kinds = {info.name: info.kind for info in model_of(**fields).parameter_infos()}
        for name, kind in kinds.items():
            if name.endswith((".gain", ".tau")) and ".part" in name:
                assert kind == "vector"
            elif ".squares." in name or ("attention" in name and ".part." in name):
                assert kind == "matrix"
            elif "ffn.up" in name or "ffn.down" in name:
                assert kind == "bank"


def test_rows_of_another_length():
    """A fan-in that is no multiple of C has rows and square matrices of its own length."""
    model = model_of(rule="oa", block={"ffn": {"use": "mlp", "n_ffn": 24}})
    source, _ = uses(model)

    assert {name: tuple(m.shape) for name, m in source.squares.items()} == {
        "mix_16": (16, 16),
        "mix_24": (24, 24),
    }


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ({"repeat": 2, "weights": "retained", **BLOCK}, "open this weight source at a `recur`"),
        (
            {"recur": 2, "weights": {"use": "retained", "rule": "oa", "rank": 2}, **BLOCK},
            "no learned transform",
        ),
    ],
)
def test_refused(stack, message):
    """No recursion, or a rank for a rule without Psi, is refused at its place."""
    with pytest.raises(RecipeError) as error:
        strawberry.build(tiny(stack, **ATTENTION))

    (problem,) = error.value.problems
    assert message in problem.message
    assert problem.location is not None
